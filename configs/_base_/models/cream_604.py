# The largest model that Cream's authors released, for training from scratch. Other architectures: model_selection=14,
# 43, 114, 287 or 481, or arch=[[0], stage 1, …, stage 5, [0]] with the index of an op for each block.
model = dict(
    type="mmcls.ImageClassifier",
    data_preprocessor=dict(
        type="mmrazor.NonBlockingClsDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type="mmrazor.CreamMobileNet", model_selection=604),
    neck=dict(type="mmcls.GlobalAveragePooling"),
    head=dict(
        type="mmcls.StackedLinearClsHead",
        num_classes=1000,
        in_channels=320,
        mid_channels=[1280],
        dropout_rate=0.2,
        act_cfg=dict(type="SiLU"),
        loss=dict(type="mmrazor.SmoothCrossEntropyLoss", label_smooth_val=0.1),
    ),
)
