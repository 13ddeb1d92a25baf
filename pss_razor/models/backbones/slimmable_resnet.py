"""ResNet whose stem and stage widths are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pss_razor.core import ConfigError
from pss_razor.models.backbones.connect import OutputWidthMixin, connect, searched_width
from pss_razor.registry import MODELS

from mmcls.models.backbones import ResNet


@MODELS.register_module()
class SlimmableResNet(OutputWidthMixin, ResNet):
    """mmcls' bottleneck ResNet made of sliced ops, with the search groups ``stem``, ``stage1`` … ``stage4``.

    Base widths are 64 and 256, 512, 1024, 2048. Every width is its base width times a multiplier uniform in
    ``width_range``, rounded by :func:`~pss_razor.core.make_divisible`; a bottleneck is a quarter of its stage's width.
    Parameter names are those of mmcls' ResNet, so that its checkpoints load.

    Args:
        depth: 50, 101 or 152.
        width_range: Smallest and largest width multiplier.
        out_indices: Stages whose feature maps are returned, 0 to 3. They have the active widths.
        **kwargs: Of :class:`mmcls.models.ResNet`.

    Example:
        ``backbone=dict(type='SlimmableResNet', depth=50), head=dict(type='SlicedLinearClsHead', in_channels=2048, …)``
    """

    def __init__(
        self,
        depth: int = 50,
        width_range: tuple[float, float] = (0.75, 1.0),
        out_indices: Sequence[int] = (3,),
        **kwargs: Any,
    ) -> None:
        if depth not in (50, 101, 152):
            raise ConfigError(f"depth = {depth}: SlimmableResNet has bottleneck blocks, choose 50, 101 or 152")
        kwargs.setdefault(
            "init_cfg",
            [
                dict(type="Kaiming", mode="fan_out", layer=["SlicedConv2d"]),
                dict(type="Constant", val=1, layer=["SlicedBatchNorm2d"]),
            ],
        )
        super().__init__(
            depth,
            out_indices=out_indices,
            conv_cfg=dict(type="mmrazor.SlicedConv2d"),
            norm_cfg=dict(type="mmrazor.SlicedBatchNorm2d"),
            **kwargs,
        )
        if self.deep_stem or self.avg_down:
            raise ConfigError("SlimmableResNet has the plain stem and shortcuts; remove deep_stem and avg_down")
        width = searched_width("stem", self.conv1.out_channels, width_range)
        connect(self.conv1, self.norm1, None, width)
        for stage, layer_name in enumerate(self.res_layers, start=1):
            blocks = getattr(self, layer_name)
            stage_width = searched_width(f"stage{stage}", blocks[0].conv3.out_channels, width_range)
            bottleneck = stage_width // (stage_width.num_channels // blocks[0].conv1.out_channels)
            for block in blocks:
                block.latency_block = "Bottleneck"
                if block.downsample is not None:
                    conv, norm = block.downsample
                    connect(conv, norm, width, stage_width)
                connect(block.conv1, block.norm1, width, bottleneck)
                connect(block.conv2, block.norm2, bottleneck, bottleneck)
                connect(block.conv3, block.norm3, bottleneck, stage_width)
                width = stage_width
        self.set_output_width(width)
