# From trained weights on ImageNet: a config names the network.
_base_ = [
    "../models/pss_converted.py",
    "../datasets/imagenet.py",
    "../schedules/imagenet_pretrained_30e.py",
]
