# Uniform sampling on MobileNetV1, a baseline of the paper: every width and the resolution by itself, no pools.
_base_ = "../pss/pss_mbv1_flops.py"

default_hooks = dict(subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="uniform"))
