# The supernet of Cream (NeurIPS 2020): six ops a block; depth and input size follow from flops_range, in millions.
_base_ = "../algorithms/cream.py"

model = dict(architecture=dict(backbone=dict(type="CreamMobileNet", flops_range=(0, 287))))
