# SPOS on the MobileNet of AngleNAS, near to ProxylessNAS-GPU (arXiv 2004.13431): MMRazor's supernet, one place of a
# single op and 21 of 7 each, 6e17 subnets.
_base_ = "mmrazor::_base_/nas_backbones/spos_mobilenet_supernet.py"

supernet = dict(
    type="mmcls.ImageClassifier",
    # MMRazor's own config has none, so that it trains on raw pixels.
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
        in_channels=1728,
        loss=dict(type="mmrazor.SmoothCrossEntropyLoss", label_smooth_val=0.1),
        topk=(1, 5),
    ),
)
model = dict(type="SPOS", architecture=supernet, mutator=dict(type="SubnetMutator"))
