# MutualNet on CIFAR-100, a baseline of the paper: one width multiplier for all layers, and the resolution.
_base_ = "../pss/pss_mbv2_flops_cifar100.py"

default_hooks = dict(
    subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="mutualnet", smallest_resolution="any")
)
