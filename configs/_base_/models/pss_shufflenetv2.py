# Prioritized pools over one-shot ops: the supernet of SPOS on ShuffleNetV2, 20 places with 4 ops each. The choices of
# an op are ordered by their FLOPs, so that the largest subnet takes the dearest op everywhere.
_base_ = ["mmrazor::_base_/nas_backbones/spos_shufflenet_supernet.py", "../algorithms/pss.py"]

model = dict(
    architecture=dict(
        # The resolution is not searched.
        resolutions=None,
        backbone=_base_.nas_backbone,
        head=dict(in_channels=1024),
    ),
    input_size=224,
)
