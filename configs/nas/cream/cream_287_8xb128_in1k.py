# The released model 287: 224 pixels, 276.26 M multiply-accumulates, 6.04 M parameters.
_base_ = "./cream_604_8xb128_in1k.py"

model = dict(backbone=dict(model_selection=287))
