# The supernet of PSS-Net on MobileNetV1 (arXiv 2109.05432): fourteen widths, thirteen resolutions, 4e15 subnets.
_base_ = "./pss_mobilenet_v2.py"

model = dict(
    architecture=dict(
        backbone=dict(_delete_=True, type="SlimmableMobileNetV1", width_range=(0.75, 1.0)),
        # The output width is searched too; this head follows it.
        head=dict(type="SlicedLinearClsHead", in_channels=1024),
    ),
)
