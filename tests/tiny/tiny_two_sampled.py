# Two sampled subnets a step, with losses weighted by cost.
_base_ = "tiny_supernet.py"

model = dict(loss_weights=dict(metric="flops", power=0.5), distillation=dict(type="AlphaDivergence"))
default_hooks = dict(subnet_sampler=dict(num_sampled=2, smallest_resolution="any"))
