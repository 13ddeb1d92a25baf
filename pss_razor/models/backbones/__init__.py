"""Slimmable backbones."""

from pss_razor.models.backbones.slimmable_mobilenet_v2 import SlimmableMobileNetV2

__all__ = ["SlimmableMobileNetV2"]
