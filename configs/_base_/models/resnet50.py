# The backbone and head of ResNet-50, for pss_resnet50.py and in place of a recipe's own.
resnet50 = dict(
    backbone=dict(type="SlimmableResNet", depth=50, width_range=(0.75, 1.0)),
    # The output width is searched too; this head follows it.
    head=dict(type="SlicedLinearClsHead", in_channels=2048),
)
