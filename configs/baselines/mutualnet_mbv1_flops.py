# MutualNet on MobileNetV1, a baseline of the paper: one width multiplier for all layers, and the resolution.
_base_ = "../pss/pss_mbv1_flops.py"

default_hooks = dict(
    subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="mutualnet", smallest_resolution="any")
)
