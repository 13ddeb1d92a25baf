# Uniform sampling on Fashion-MNIST, a baseline of the paper: every width and the resolution by itself, no pools.
_base_ = "../pss/pss_mbv2_flops_fashion.py"

default_hooks = dict(subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="uniform"))
