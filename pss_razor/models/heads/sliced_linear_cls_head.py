"""A linear classification head that follows the backbone's output width."""

from __future__ import annotations

from typing import Any

from pss_razor import compat
from pss_razor.models.dynamic_ops import SlicedLinear
from pss_razor.models.mutables import PrefixChannelContainer, PrefixMutableChannel
from pss_razor.registry import MODELS

from mmcls.models.heads import LinearClsHead
from mmrazor.models.mutables import MutableChannelContainer


@MODELS.register_module()
class SlicedLinearClsHead(LinearClsHead):
    """mmcls' ``LinearClsHead`` with a :class:`SlicedLinear`.

    Example:
        ``head=dict(type='SlicedLinearClsHead', num_classes=1000, in_channels=1280)``
    """

    def __init__(self, num_classes: int, in_channels: int, init_cfg: dict | None = None, **kwargs: Any) -> None:
        init_cfg = init_cfg or dict(type="Normal", layer="SlicedLinear", std=0.01)
        # mmcls' default has no scope; MMRazor's scope finds torch's CrossEntropyLoss, which takes other arguments.
        kwargs.setdefault("loss", dict(type="mmcls.CrossEntropyLoss"))
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.fc = SlicedLinear(in_channels, num_classes)
        compat.register_channel_container(self, PrefixChannelContainer)

    def connect_with_backbone(self, backbone_output_mutable: PrefixMutableChannel) -> None:
        """Let the input features follow the backbone's output channels."""
        MutableChannelContainer.register_mutable_channel_to_module(self.fc, backbone_output_mutable, False)
