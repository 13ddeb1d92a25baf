# The digits config, small enough for tests: an epoch of six iterations takes half a second.
_base_ = "../../configs/pss/pss_mbv2_flops_digits.py"

model = dict(
    architecture=dict(
        resolutions=[16, 24, 32],
        backbone=dict(widen_factor=0.25),
    ),
    constraints=[
        dict(metric="flops", first=0.3, last=0.7, step=0.2),
        dict(metric="params", first=0.2, last=0.25, step=0.01),
    ],
)
train_dataloader = dict(batch_size=16, dataset=dict(indices=96))
# The paper's protocol: the test images are those that subnets are chosen by.
val_dataloader = dict(batch_size=24, dataset=dict(split="test", indices=48))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3, val_interval=1)
param_scheduler = dict(end=3)
val_cfg = dict(calibration_batches=2)
test_cfg = dict(top_k=2, calibration_batches=2, selection_dataloader=None)
default_hooks = dict(
    logger=dict(interval=3),
    checkpoint=dict(max_keep_ckpts=-1),
    subnet_sampler=dict(pool_size=2, p_explore=(0.5, 0.01), temperature=(1.0, 0.01)),
)
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
# With its scope, since mmengine looks wrappers up in its own registry only.
model_wrapper_cfg = dict(type="mmrazor.PSSDistributedDataParallel")
