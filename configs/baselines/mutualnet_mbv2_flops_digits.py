# MutualNet on digits, a baseline of the paper: one width multiplier for all layers, and the resolution.
_base_ = "../pss/pss_mbv2_flops_digits.py"

custom_hooks = [dict(type="BaselineSamplerHook", method="mutualnet")]
