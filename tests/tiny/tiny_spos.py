# The digits config of SPOS' supernet, small enough for tests: three places of four ops.
_base_ = "../../configs/nas/spos/spos_supernet_shufflenetv2_digits.py"

_op = _base_.model.architecture.backbone.arch_setting[0][2]
model = dict(
    architecture=dict(backbone=dict(arch_setting=[[64, 2, _op], [96, 1, _op]], out_indices=(2,), widen_factor=0.25))
)
train_dataloader = dict(batch_size=16, dataset=dict(indices=96))
test_dataloader = dict(batch_size=24, dataset=dict(indices=48))
param_scheduler = dict(end=2)
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=3), checkpoint=dict(max_keep_ckpts=-1))
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
