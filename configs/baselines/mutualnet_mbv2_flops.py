# MutualNet on MobileNetV2, a baseline of the paper: one width multiplier for all layers, and the resolution.
_base_ = "../pss/pss_mbv2_flops.py"

custom_hooks = [dict(type="BaselineSamplerHook", method="mutualnet")]
