# PSS-R50-F on scikit-learn's digits.
_base_ = ["./pss_mbv2_flops_digits.py", "../_base_/models/resnet50.py"]

model = dict(
    architecture=dict(backbone=dict(_base_.resnet50.backbone, _delete_=True), head=_base_.resnet50.head),
    constraints=[dict(metric="flops", num_targets=9)],
)
