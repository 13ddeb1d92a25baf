# ResNet-50 in the space of PSS-Net's kind: stem and four stage widths, thirteen resolutions, 1.3e7 subnets.
_base_ = "./pss_mobilenet_v2.py"

model = dict(
    architecture=dict(
        backbone=dict(_delete_=True, type="SlimmableResNet", depth=50, width_range=(0.75, 1.0)),
        # The output width is searched too; this head follows it.
        head=dict(type="SlicedLinearClsHead", in_channels=2048),
    ),
)
