# Uniform sampling on CIFAR-100, a baseline of the paper: every width and the resolution by itself, no pools.
_base_ = "../pss/pss_mbv2_flops_cifar100.py"

default_hooks = dict(subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="uniform"))
