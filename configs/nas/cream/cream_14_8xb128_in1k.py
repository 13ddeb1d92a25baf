# The released model 14: 64 pixels, 13.19 M multiply-accumulates, 2.67 M parameters.
_base_ = [
    "../../_base_/models/cream_604.py",
    "../../_base_/datasets/imagenet_cream.py",
    "../../_base_/schedules/imagenet_cream_retrain_step.py",
]

model = dict(backbone=dict(model_selection=14))

_base_.train_dataloader.dataset.pipeline[1].scale = 64
_base_.val_dataloader.dataset.pipeline[1].scale = 73
_base_.val_dataloader.dataset.pipeline[2].crop_size = 64
_base_.test_dataloader.dataset.pipeline[1].scale = 73
_base_.test_dataloader.dataset.pipeline[2].crop_size = 64
