# One subnet of the space trained alone on Fashion-MNIST, by labels, in as many steps as the supernet: what sharing
# weights costs. --cfg-options model.subnet=smallest trains another; tools/train_alone.py takes those of a results file.
_base_ = "../pss/pss_mbv2_flops_fashion.py"

model = dict(type="SubnetAlone", subnet="largest")
# There is one subnet to draw.
default_hooks = dict(subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="uniform"))
