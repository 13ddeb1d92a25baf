# SPOS on the MobileNet of AngleNAS, near to ProxylessNAS-GPU (arXiv 2004.13431): MMRazor's supernet, one place of a
# single op and 21 of 7 each, 6e17 subnets.
_base_ = ["mmrazor::_base_/nas_backbones/spos_mobilenet_supernet.py", "../algorithms/spos.py"]

supernet = dict(_base_.supernet, backbone=_base_.nas_backbone)
supernet["head"]["in_channels"] = 1728
model = dict(architecture=supernet)
