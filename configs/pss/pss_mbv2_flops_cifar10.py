# PSS-MBV2-F on CIFAR-10, one GPU: tools/train.py configs/pss/pss_mbv2_flops_cifar10.py
_base_ = [
    "../_base_/models/pss_mobilenet_v2.py",
    "../_base_/datasets/cifar10.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

model = dict(
    data_preprocessor=_base_.image_statistics,
    architecture=dict(resolutions=[32, 40, 48, 56, 64], head=dict(num_classes=10)),
    # From the smallest to the largest subnet; in numbers, so that baselines of fewer resolutions have the same targets.
    constraints=[dict(metric="flops", first=4.25, last=24.5, step=2.25)],
)

optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = dict(end=200)
train_cfg = dict(max_epochs=200, val_interval=20)
auto_scale_lr = dict(base_batch_size=128)
test_cfg = dict(selection_dataloader=_base_.selection_dataloader)
