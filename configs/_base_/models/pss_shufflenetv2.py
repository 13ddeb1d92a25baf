# Prioritized pools over one-shot ops: the supernet of SPOS on ShuffleNetV2, 20 places with 4 ops each. The choices of
# an op are ordered by their FLOPs, so that the largest subnet takes the dearest op everywhere.
_base_ = "mmrazor::_base_/nas_backbones/spos_shufflenet_supernet.py"

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
        # The resolution is not searched.
        resolutions=None,
        backbone=_base_.nas_backbone,
        neck=dict(type="mmcls.GlobalAveragePooling"),
        head=dict(
            type="mmcls.LinearClsHead",
            num_classes=1000,
            in_channels=1024,
            loss=dict(type="mmcls.CrossEntropyLoss"),
        ),
    ),
    mutator=dict(type="SubnetMutator"),
    estimators=dict(flops=dict(type="FlopsEstimator"), params=dict(type="ParamsEstimator")),
    input_size=224,
)
