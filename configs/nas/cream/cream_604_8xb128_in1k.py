# The released model 604: 224 pixels, 578.70 M multiply-accumulates, 9.70 M parameters.
_base_ = [
    "../../_base_/models/cream_604.py",
    "../../_base_/datasets/imagenet_cream.py",
    "../../_base_/schedules/imagenet_cream_retrain_cosine.py",
]
