# The released model 43: 96 pixels, 40.66 M multiply-accumulates, 4.40 M parameters.
_base_ = [
    "../../_base_/models/cream_604.py",
    "../../_base_/datasets/imagenet_cream.py",
    "../../_base_/schedules/imagenet_cream_retrain_step.py",
]

from pss_razor.config import resize_images

_base_.model.backbone.model_selection = 43
resize_images(_base_, 96)
