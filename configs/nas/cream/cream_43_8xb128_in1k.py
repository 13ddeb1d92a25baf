# The released model 43: 96 pixels, 40.66 M multiply-accumulates, 4.40 M parameters.
_base_ = [
    "../../_base_/models/cream_604.py",
    "../../_base_/datasets/imagenet_cream.py",
    "../../_base_/schedules/imagenet_cream_retrain_step.py",
]

model = dict(backbone=dict(model_selection=43))

_base_.train_dataloader.dataset.pipeline[1].scale = 96
_base_.val_dataloader.dataset.pipeline[1].scale = 109
_base_.val_dataloader.dataset.pipeline[2].crop_size = 96
_base_.test_dataloader.dataset.pipeline[1].scale = 109
_base_.test_dataloader.dataset.pipeline[2].crop_size = 96
