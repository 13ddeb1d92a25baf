# The released model 14: 64 pixels, 13.19 M multiply-accumulates, 2.67 M parameters.
_base_ = [
    "../../_base_/models/cream_604.py",
    "../../_base_/datasets/imagenet_cream.py",
    "../../_base_/schedules/imagenet_cream_retrain_step.py",
]

from pss_razor.config import resize_images

_base_.model.backbone.model_selection = 14
resize_images(_base_, 64)
