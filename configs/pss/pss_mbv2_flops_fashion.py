# PSS-MBV2-F on Fashion-MNIST with half the widths and more: what docs/evidence.md compares methods on, 1,200 steps.
_base_ = [
    "../_base_/models/pss_mobilenet_v2.py",
    "../_base_/datasets/fashion_mnist.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

model = dict(
    data_preprocessor=_base_.image_statistics,
    architecture=dict(
        resolutions=[16, 20, 24, 28, 32],
        backbone=dict(width_range=(0.5, 1.0)),
        head=dict(num_classes=10),
    ),
    # From the smallest to the largest subnet; in numbers, so that baselines of fewer resolutions have the same targets.
    constraints=[dict(metric="flops", first=0.887, last=6.123, step=0.748)],
)

optim_wrapper = dict(optimizer=dict(lr=0.025))
param_scheduler = dict(end=24)
# The only validation is that of the last epoch.
train_cfg = dict(max_epochs=24, val_interval=24)
auto_scale_lr = dict(base_batch_size=64)
test_cfg = dict(top_k=10, selection_dataloader=_base_.selection_dataloader)
# 1,200 steps: pools of 8 targets are full in time.
default_hooks = dict(logger=dict(interval=25), subnet_sampler=dict(pool_size=20))
