# Two sampled subnets a step.
_base_ = "tiny_supernet.py"

default_hooks = dict(subnet_sampler=dict(num_sampled=2))
