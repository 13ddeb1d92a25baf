"""Models: slimmable backbones, mutators, the PSS algorithm."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
from pss_razor.models.algorithms import PSS
from pss_razor.models.backbones import SlimmableMobileNetV1, SlimmableMobileNetV2, SlimmableResNet
from pss_razor.models.classifiers import SlimmableImageClassifier
from pss_razor.models.dynamic_ops import SlicedBatchNorm2d, SlicedConv2d, SlicedLinear
from pss_razor.models.heads import SlicedLinearClsHead
from pss_razor.models.mutables import PrefixChannelContainer, PrefixMutableChannel, ScaledChannel
from pss_razor.models.mutators import PSSMutator
from pss_razor.models.wrappers import PSSDistributedDataParallel

__all__ = [
    "PSS",
    "PSSDistributedDataParallel",
    "PSSMutator",
    "PrefixChannelContainer",
    "PrefixMutableChannel",
    "ScaledChannel",
    "SlicedBatchNorm2d",
    "SlicedConv2d",
    "SlicedLinear",
    "SlicedLinearClsHead",
    "SlimmableImageClassifier",
    "SlimmableMobileNetV1",
    "SlimmableMobileNetV2",
    "SlimmableResNet",
]
