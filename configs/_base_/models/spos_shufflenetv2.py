# SPOS on ShuffleNetV2 (arXiv 1904.00420): MMRazor's supernet of 20 places with 4 ops each, 1e12 subnets.
_base_ = ["mmrazor::_base_/nas_backbones/spos_shufflenet_supernet.py", "../algorithms/spos.py"]

supernet = dict(_base_.supernet, backbone=_base_.nas_backbone)
supernet["head"]["in_channels"] = 1024
model = dict(architecture=supernet)
