# PSS-R50-F on CIFAR-10.
_base_ = ["./pss_mbv2_flops_cifar10.py", "../_base_/models/resnet50.py"]

model = dict(
    architecture=dict(backbone=dict(_base_.resnet50.backbone, _delete_=True), head=_base_.resnet50.head),
    constraints=[dict(metric="flops", num_targets=9)],
)
