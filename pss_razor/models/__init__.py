"""Models: the algorithms PSS and Cream, their supernets, mutators, losses and wrappers."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
from pss_razor.models.activations import LeanReLU6
from pss_razor.models.algorithms import PSS, Cream, CreamStep, SubnetAlone
from pss_razor.models.backbones import (
    ConvertedNetwork,
    CreamMobileNet,
    SlimmableMobileNetV1,
    SlimmableMobileNetV2,
    SlimmableResNet,
)
from pss_razor.models.backbones.connect import OutputWidthMixin, connect, searched_width
from pss_razor.models.build_supernet import build_supernet
from pss_razor.models.classifiers import ConvertedImageClassifier, SlimmableImageClassifier
from pss_razor.models.data_preprocessors import LabelledTensorsDataPreprocessor, NonBlockingClsDataPreprocessor
from pss_razor.models.dynamic_ops import SlicedBatchNorm2d, SlicedConv2d, SlicedLinear, StaticShuffle
from pss_razor.models.heads import SlicedLinearClsHead
from pss_razor.models.losses import AlphaDivergence, KLDistillation, SmoothCrossEntropyLoss
from pss_razor.models.mutables import PrefixChannelContainer, PrefixMutableChannel, ScaledChannel
from pss_razor.models.mutators import SubnetMutator
from pss_razor.models.searched_subnet import searched_subnet
from pss_razor.models.wrappers import PortableDistributedDataParallel, PSSDistributedDataParallel

__all__ = [
    "PSS",
    "AlphaDivergence",
    "ConvertedImageClassifier",
    "ConvertedNetwork",
    "Cream",
    "CreamMobileNet",
    "CreamStep",
    "KLDistillation",
    "LabelledTensorsDataPreprocessor",
    "LeanReLU6",
    "NonBlockingClsDataPreprocessor",
    "OutputWidthMixin",
    "PSSDistributedDataParallel",
    "PortableDistributedDataParallel",
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
    "SmoothCrossEntropyLoss",
    "StaticShuffle",
    "SubnetAlone",
    "SubnetMutator",
    "build_supernet",
    "connect",
    "searched_subnet",
    "searched_width",
]
