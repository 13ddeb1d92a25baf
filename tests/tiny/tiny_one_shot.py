# The digits config of PSS over ops, small enough for tests: five places of four ops.
_base_ = "../../configs/pss/pss_shufflenetv2_flops_digits.py"

_op = _base_.model.architecture.backbone.arch_setting[0][2]
model = dict(
    architecture=dict(backbone=dict(arch_setting=[[64, 2, _op], [96, 3, _op]], out_indices=(2,), widen_factor=0.25)),
    constraints=[dict(metric="flops", first=0.64, last=0.74, step=0.02)],
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
