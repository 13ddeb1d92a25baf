# Uniform sampling on digits, a baseline of the paper: every width and the resolution by itself, no pools.
_base_ = "../pss/pss_mbv2_flops_digits.py"

custom_hooks = [dict(type="BaselineSamplerHook", method="uniform")]
