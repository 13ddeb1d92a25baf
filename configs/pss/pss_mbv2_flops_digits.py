# PSS-MBV2-F on scikit-learn's digits: what `make quickstart` runs, some minutes on two CPU cores.
_base_ = [
    "../_base_/models/pss_mobilenet_v2.py",
    "../_base_/datasets/digits.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

model = dict(
    data_preprocessor=_base_.image_statistics,
    architecture=dict(resolutions=[16, 20, 24, 28, 32], head=dict(num_classes=10)),
    constraints=[dict(metric="flops", first=2, last=6, step=0.5)],
)

optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = dict(end=24)
train_cfg = dict(max_epochs=24, val_interval=8)
auto_scale_lr = dict(base_batch_size=64)
test_cfg = dict(selection_dataloader=_base_.selection_dataloader)
# 18 iterations an epoch: smaller pools are full in time.
default_hooks = dict(logger=dict(interval=9), subnet_sampler=dict(pool_size=10))
