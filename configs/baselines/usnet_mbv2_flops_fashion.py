# US-Net on Fashion-MNIST, a baseline of the paper: one width multiplier for all layers, at the largest resolution.
_base_ = "../pss/pss_mbv2_flops_fashion.py"

# One resolution, so that the smallest subnet of a training step has it too. Lower targets are out of reach.
model = dict(architecture=dict(resolutions=[32]))

default_hooks = dict(subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="usnet"))
