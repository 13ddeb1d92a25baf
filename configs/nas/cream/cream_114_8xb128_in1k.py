# The released model 114: 160 pixels, 109.62 M multiply-accumulates, 4.41 M parameters.
_base_ = "./cream_604_8xb128_in1k.py"

model = dict(backbone=dict(model_selection=114))

_base_.train_dataloader.dataset.pipeline[1].scale = 160
_base_.val_dataloader.dataset.pipeline[1].scale = 182
_base_.val_dataloader.dataset.pipeline[2].crop_size = 160
_base_.test_dataloader.dataset.pipeline[1].scale = 182
_base_.test_dataloader.dataset.pipeline[2].crop_size = 160
