# PSS-MBV1-F on CIFAR-10.
_base_ = "./pss_mbv2_flops_cifar10.py"

model = dict(
    architecture=dict(
        backbone=dict(_delete_=True, type="SlimmableMobileNetV1", width_range=(0.75, 1.0)),
        head=dict(type="SlicedLinearClsHead", in_channels=1024),
    ),
    constraints=[dict(metric="flops", num_targets=9)],
)
