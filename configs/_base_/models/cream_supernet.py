# The supernet of Cream (NeurIPS 2020): six ops a block; depth and input size follow from flops_range, in millions.
model = dict(
    type="Cream",
    data_preprocessor=dict(
        type="mmrazor.NonBlockingClsDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    architecture=dict(
        type="mmcls.ImageClassifier",
        backbone=dict(type="CreamMobileNet", flops_range=(0, 287)),
        neck=dict(type="mmcls.GlobalAveragePooling"),
        head=dict(
            type="mmcls.StackedLinearClsHead",
            num_classes=1000,
            in_channels=320,
            mid_channels=[1280],
            act_cfg=dict(type="SiLU"),
            loss=dict(type="mmrazor.SmoothCrossEntropyLoss", label_smooth_val=0.1),
        ),
    ),
    mutator=dict(type="SubnetMutator"),
    teacher="meta",
    slice_size=4,
)
