# Uniform sampling on MobileNetV1, a baseline of the paper: every width and the resolution by itself, no pools.
_base_ = "../pss/pss_mbv1_flops.py"

custom_hooks = [dict(type="BaselineSamplerHook", method="uniform")]
