# SPOS on ShuffleNetV2 (arXiv 1904.00420): MMRazor's supernet of 20 places with 4 ops each, 1e12 subnets.
_base_ = "mmrazor::_base_/nas_backbones/spos_shufflenet_supernet.py"

supernet = dict(
    type="mmcls.ImageClassifier",
    data_preprocessor=dict(
        type="mmrazor.NonBlockingClsDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=_base_.nas_backbone,
    neck=dict(type="mmcls.GlobalAveragePooling"),
    head=dict(
        type="mmcls.LinearClsHead",
        num_classes=1000,
        in_channels=1024,
        loss=dict(type="mmrazor.SmoothCrossEntropyLoss", label_smooth_val=0.1),
        topk=(1, 5),
    ),
)
model = dict(type="SPOS", architecture=supernet, mutator=dict(type="SubnetMutator"))
