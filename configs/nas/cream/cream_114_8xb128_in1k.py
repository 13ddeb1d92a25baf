# The released model 114: 160 pixels, 109.62 M multiply-accumulates, 4.41 M parameters.
_base_ = "./cream_604_8xb128_in1k.py"

from pss_razor.config import resize_images

_base_.model.backbone.model_selection = 114
resize_images(_base_, 160)
