# The released model 481: 224 pixels, 460.40 M multiply-accumulates, 7.71 M parameters.
_base_ = "./cream_604_8xb128_in1k.py"

model = dict(backbone=dict(model_selection=481))
