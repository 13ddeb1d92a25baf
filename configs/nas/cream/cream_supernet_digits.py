# Cream on scikit-learn's digits, step 1: the supernet, one block a stage at 64 pixels. Some minutes on two CPU cores.
_base_ = [
    "../../_base_/models/cream_supernet.py",
    "../../_base_/datasets/digits.py",
    "../../_base_/schedules/imagenet_cream_120e.py",
]

model = dict(
    data_preprocessor=_base_.image_statistics,
    # Paths of this supernet have 6.63 to 11.20 M.
    architecture=dict(backbone=dict(flops_range=(0, 10)), head=dict(num_classes=10)),
)

# A path of the supernet is judged by its accuracy on training batches.
val_cfg = None
val_dataloader = None
val_evaluator = None

optim_wrapper = dict(optimizer=dict(lr=0.1), paramwise_cfg=dict(custom_keys=dict(matching=dict(lr_mult=1e-3))))
param_scheduler = dict(end=12)
train_cfg = dict(max_epochs=12)
auto_scale_lr = dict(base_batch_size=64)
# 18 iterations an epoch.
default_hooks = dict(logger=dict(interval=9), path_board=dict(meta_start_epoch=4, update_iter=10))
