# US-Net on CIFAR-10, a baseline of the paper: one width multiplier for all layers, at the largest resolution.
_base_ = "../pss/pss_mbv2_flops_cifar10.py"

# One resolution, so that the smallest subnet of a training step has it too. Lower targets are out of reach.
model = dict(architecture=dict(resolutions=[64]))

default_hooks = dict(subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="usnet"))
