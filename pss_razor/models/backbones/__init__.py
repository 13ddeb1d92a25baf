"""Backbones whose widths or ops are searched."""

from pss_razor.models.backbones.converted_network import ConvertedNetwork
from pss_razor.models.backbones.cream_mobilenet import CreamMobileNet
from pss_razor.models.backbones.slimmable_mobilenet_v1 import SlimmableMobileNetV1
from pss_razor.models.backbones.slimmable_mobilenet_v2 import SlimmableMobileNetV2
from pss_razor.models.backbones.slimmable_resnet import SlimmableResNet

__all__ = ["ConvertedNetwork", "CreamMobileNet", "SlimmableMobileNetV1", "SlimmableMobileNetV2", "SlimmableResNet"]
