# Of Cream's supernet, and of a path that is trained by itself: a model adds its backbone.
_base_ = "../data_preprocessor.py"

classifier_cfg = dict(
    type="mmcls.ImageClassifier",
    neck=dict(type="mmcls.GlobalAveragePooling"),
    head=dict(
        type="mmcls.StackedLinearClsHead",
        num_classes=1000,
        in_channels=320,
        mid_channels=[1280],
        act_cfg=dict(type="SiLU"),
        loss=dict(type="mmrazor.SmoothCrossEntropyLoss", label_smooth_val=0.1),
    ),
)
