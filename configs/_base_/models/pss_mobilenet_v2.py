# The supernet of PSS-Net on MobileNetV2 (arXiv 2109.05432): eight widths, thirteen resolutions, 41,184 subnets.
model = dict(
    type="PSS",
    channels_last=True,
    data_preprocessor=dict(
        type="mmrazor.NonBlockingClsDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    architecture=dict(
        type="SlimmableImageClassifier",
        resolutions=[128, 136, 144, 152, 160, 168, 176, 184, 192, 200, 208, 216, 224],
        backbone=dict(type="SlimmableMobileNetV2", width_range=(0.75, 1.0)),
        neck=dict(type="mmcls.GlobalAveragePooling"),
        head=dict(
            type="mmcls.LinearClsHead",
            num_classes=1000,
            in_channels=1280,
            loss=dict(type="mmcls.CrossEntropyLoss"),
        ),
    ),
    mutator=dict(type="SubnetMutator"),
    # Resources that are known of every subnet; `constraints` says which of them have targets.
    estimators=dict(flops=dict(type="FlopsEstimator"), params=dict(type="ParamsEstimator")),
)
