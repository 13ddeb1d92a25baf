# Prioritized pools over the ops of ShuffleNetV2 on scikit-learn's digits, six places of four ops at half the channels:
# some minutes on two CPU cores.
_base_ = [
    "../_base_/models/pss_shufflenetv2.py",
    "../_base_/datasets/digits.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

_op = _base_.nas_backbone.arch_setting[0][2]
model = dict(
    data_preprocessor=_base_.image_statistics,
    architecture=dict(
        backbone=dict(arch_setting=[[64, 3, _op], [160, 3, _op]], widen_factor=0.5, out_indices=(2,)),
        head=dict(num_classes=10),
    ),
    input_size=32,
    constraints=[dict(metric="flops", first=1.85, last=2.2, step=0.05)],
)
# torch's fused SGD fails where a parameter gets its first gradient later than others.
optim_wrapper = dict(optimizer=dict(lr=0.05, fused=False))
param_scheduler = dict(end=24)
train_cfg = dict(max_epochs=24, val_interval=8)
auto_scale_lr = dict(base_batch_size=64)
test_cfg = dict(selection_dataloader=_base_.selection_dataloader)
# 18 iterations an epoch: smaller pools are full in time.
default_hooks = dict(logger=dict(interval=9), subnet_sampler=dict(pool_size=10))
