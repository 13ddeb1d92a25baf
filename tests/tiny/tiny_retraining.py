# SPOS' retraining of a subnet of tiny_spos.py, with validation, which the digits config has not.
_base_ = "../../configs/nas/spos/spos_subnet_shufflenetv2_digits.py"

_op = _base_.model.cfg.backbone.arch_setting[0][2]
_base_.model.fix_subnet = {
    "backbone.layers.0.0": dict(chosen="shuffle_3x3"),
    "backbone.layers.0.1": dict(chosen="shuffle_xception"),
    "backbone.layers.1.0": dict(chosen="shuffle_5x5"),
}
# Dropout draws from torch's generator, as validation does when its loader starts.
_head = dict(_delete_=True, type="mmcls.StackedLinearClsHead", num_classes=10, in_channels=1024, mid_channels=[16])
model = dict(
    cfg=dict(
        backbone=dict(arch_setting=[[64, 2, _op], [96, 1, _op]], out_indices=(2,), widen_factor=0.25),
        head=dict(_head, dropout_rate=0.5, loss=dict(type="mmcls.CrossEntropyLoss")),
    )
)
train_dataloader = dict(batch_size=16, dataset=dict(indices=96))
test_dataloader = dict(batch_size=24, dataset=dict(indices=48))
val_dataloader = dict(**_base_.test_dataloader, _delete_=True)
val_dataloader.update(batch_size=24, dataset=dict(**_base_.test_dataloader.dataset, indices=48))
val_evaluator = dict(**_base_.test_evaluator, _delete_=True)
val_cfg = dict(_delete_=True)
param_scheduler = dict(end=3)
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(logger=dict(interval=3), checkpoint=dict(max_keep_ckpts=-1))
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
