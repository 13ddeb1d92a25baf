# Step 1 of SPOS on scikit-learn's digits, six places of four ops at half the channels: 4,096 subnets. All 20 places
# learn nothing in a few minutes. `make spos-digits` runs all steps on the CPU.
_base_ = [
    "../../_base_/models/spos_shufflenetv2.py",
    "../../_base_/datasets/digits.py",
]

_op = _base_.supernet.backbone.arch_setting[0][2]
supernet = dict(
    data_preprocessor=_base_.image_statistics,
    backbone=dict(arch_setting=[[64, 3, _op], [160, 3, _op]], widen_factor=0.5, out_indices=(2,)),
    head=dict(num_classes=10),
)
model = dict(architecture=supernet)

optim_wrapper = dict(
    constructor="MergedGroupsConstructor",
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=4e-5),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, dwconv_decay_mult=0.0),
)
param_scheduler = dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=True, end=40, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=40)
val_cfg = None
val_dataloader = None
val_evaluator = None
test_cfg = dict()
default_hooks = dict(logger=dict(interval=18))
