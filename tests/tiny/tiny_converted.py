# A network of torchvision's on digits, converted: an epoch of six iterations.
_base_ = "../../configs/pss/pss_mbv2_flops_digits.py"

model = dict(
    architecture=dict(
        _delete_=True,
        type="ConvertedImageClassifier",
        network=dict(type="torchvision.mobilenet_v3_small", width_mult=0.25, num_classes=10),
        resolutions=[16, 24, 32],
        sort="l1",
    ),
    constraints=[dict(metric="flops", num_targets=4), dict(metric="params", num_targets=3)],
)
train_dataloader = dict(batch_size=16, dataset=dict(indices=96))
# The paper's protocol: the test images are those that subnets are chosen by.
val_dataloader = dict(batch_size=24, dataset=dict(split="test", indices=48))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = dict(end=2)
val_cfg = dict(calibration_batches=2)
test_cfg = dict(top_k=2, calibration_batches=2, selection_dataloader=None)
default_hooks = dict(
    logger=dict(interval=3),
    checkpoint=dict(max_keep_ckpts=-1),
    subnet_sampler=dict(pool_size=2, p_explore=(0.5, 0.01), temperature=(1.0, 0.01)),
)
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
