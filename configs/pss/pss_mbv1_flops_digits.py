# PSS-MBV1-F on scikit-learn's digits.
_base_ = "./pss_mbv2_flops_digits.py"

model = dict(
    architecture=dict(
        backbone=dict(_delete_=True, type="SlimmableMobileNetV1", width_range=(0.75, 1.0)),
        head=dict(type="SlicedLinearClsHead", in_channels=1024),
    ),
    constraints=[dict(metric="flops", num_targets=11)],
)
