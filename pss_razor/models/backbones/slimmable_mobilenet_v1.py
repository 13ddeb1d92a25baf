"""MobileNetV1 whose widths are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pss_razor.core import ConfigError
from pss_razor.models.backbones.connect import OutputWidthMixin, connect, searched_width
from pss_razor.registry import MODELS

from mmcls.models.backbones.base_backbone import BaseBackbone
from mmcv.cnn import ConvModule


@MODELS.register_module()
class SlimmableMobileNetV1(OutputWidthMixin, BaseBackbone):
    """MobileNetV1 (arXiv 1704.04861) with the search groups ``stem``, ``block1`` … ``block13``.

    A block is a depthwise 3×3 conv, as wide as its input, and a 1×1 conv to the block's width, each with BN and ReLU6
    (as in PSS-Net; the original has ReLU).
    Every width is its base width times a multiplier uniform in ``width_range``, rounded by
    :func:`~pss_razor.core.make_divisible`.

    Args:
        width_range: Smallest and largest width multiplier.
        out_indices: Blocks whose feature maps are returned, 0 to 12. They have the active widths.
        act_cfg: Activation.
        init_cfg: Initialisation; None takes that of PSS-Net.

    Example:
        ``backbone=dict(type='SlimmableMobileNetV1'), head=dict(type='SlicedLinearClsHead', in_channels=1024, …)``
    """

    stem_width = 32
    block_widths = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    block_strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

    def __init__(
        self,
        width_range: tuple[float, float] = (0.75, 1.0),
        out_indices: Sequence[int] = (12,),
        act_cfg: dict | None = None,
        init_cfg: list[dict] | None = None,
    ) -> None:
        super().__init__(
            init_cfg
            or [
                dict(type="Kaiming", mode="fan_out", layer=["SlicedConv2d"]),
                dict(type="Constant", val=1, layer=["SlicedBatchNorm2d"]),
            ]
        )
        for index in out_indices:
            if index not in range(len(self.block_widths)):
                raise ConfigError(f"out_indices = {tuple(out_indices)}: MobileNetV1 has blocks 0 to 12, not {index}")
        self.out_indices = tuple(out_indices)
        layer: dict[str, Any] = dict(
            conv_cfg=dict(type="mmrazor.SlicedConv2d"),
            norm_cfg=dict(type="mmrazor.SlicedBatchNorm2d"),
            act_cfg=act_cfg or dict(type="mmrazor.LeanReLU6"),
        )
        self.stem = ConvModule(3, self.stem_width, 3, stride=2, padding=1, **layer)
        self.blocks = nn.ModuleList()
        channels = self.stem_width
        for width, stride in zip(self.block_widths, self.block_strides, strict=True):
            depthwise = ConvModule(channels, channels, 3, stride=stride, padding=1, groups=channels, **layer)
            self.blocks.append(nn.Sequential(depthwise, ConvModule(channels, width, 1, **layer)))
            channels = width
        self._connect(width_range)

    def _connect(self, width_range: tuple[float, float]) -> None:
        width = searched_width("stem", self.stem_width, width_range)
        connect(self.stem.conv, self.stem.bn, None, width)
        blocks: list[Any] = list(self.blocks)
        for number, block in enumerate(blocks, start=1):
            depthwise, pointwise = block
            block_width = searched_width(f"block{number}", pointwise.conv.out_channels, width_range)
            block.latency_block = "MBV1Block"
            connect(depthwise.conv, depthwise.bn, width, width)
            connect(pointwise.conv, pointwise.bn, width, block_width)
            width = block_width
        self.set_output_width(width)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the blocks in ``out_indices``."""
        x = self.stem(x)
        outs = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.out_indices:
                outs.append(x)
        return tuple(outs)
