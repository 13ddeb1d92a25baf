# PSS-R50-F on scikit-learn's digits.
_base_ = "./pss_mbv2_flops_digits.py"

model = dict(
    architecture=dict(
        backbone=dict(_delete_=True, type="SlimmableResNet", depth=50, width_range=(0.75, 1.0)),
        head=dict(type="SlicedLinearClsHead", in_channels=2048),
    ),
    constraints=[dict(metric="flops", num_targets=9)],
)
