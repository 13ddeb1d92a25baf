"""MobileNetV2 whose widths are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pss_razor.models.backbones.connect import connect, searched_width
from pss_razor.models.mutables import PrefixMutableChannel
from pss_razor.registry import MODELS

from mmcls.models.backbones import MobileNetV2


@MODELS.register_module()
class SlimmableMobileNetV2(MobileNetV2):
    """mmcls' MobileNetV2 made of sliced ops, with the search groups ``stem``, ``stage1`` … ``stage7``.

    Every width is its base width times a multiplier uniform in ``width_range``, rounded by
    :func:`~pss_razor.core.make_divisible`. The hidden width of a block is its expansion times its actual input width;
    the last conv keeps its 1280 channels. Parameter names are those of mmcls' MobileNetV2, so that its checkpoints
    load.

    Args:
        width_range: Smallest and largest width multiplier of the stem and the seven stages.
        out_indices: Which stages' feature maps are returned, 0 to 6 for the stages, 7 for the last conv. They have
            the active widths.
        **kwargs: Of :class:`mmcls.models.MobileNetV2`: ``widen_factor``, ``frozen_stages``, ``act_cfg``,
            ``norm_eval``, ``with_cp``, ``init_cfg``.

    Example:
        ``backbone=dict(type='SlimmableMobileNetV2', width_range=(0.75, 1.0), out_indices=(7, ))``
    """

    def __init__(
        self,
        width_range: tuple[float, float] = (0.75, 1.0),
        out_indices: Sequence[int] = (7,),
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault(
            "init_cfg",
            [
                # std = sqrt(2 / (k² · cout)), also for depthwise convs
                dict(type="Kaiming", mode="fan_out", layer=["SlicedConv2d"]),
                dict(type="Constant", val=1, layer=["SlicedBatchNorm2d"]),
            ],
        )
        kwargs.setdefault("act_cfg", dict(type="mmrazor.LeanReLU6"))
        super().__init__(
            out_indices=out_indices,
            conv_cfg=dict(type="mmrazor.SlicedConv2d"),
            norm_cfg=dict(type="mmrazor.SlicedBatchNorm2d"),
            **kwargs,
        )
        width = searched_width("stem", self.conv1.conv.out_channels, width_range)
        connect(self.conv1.conv, self.conv1.bn, None, width)
        for stage, layer_name in enumerate(self.layers[:-1], start=1):
            blocks = getattr(self, layer_name)
            stage_width = searched_width(f"stage{stage}", blocks[0].conv[-1].conv.out_channels, width_range)
            for block in blocks:
                self._register_block(block.conv, width, stage_width)
                block.latency_block = "MBV2Block"
                width = stage_width
        connect(self.conv2.conv, self.conv2.bn, width, None)

    @staticmethod
    def _register_block(convs: Sequence[Any], width_in: PrefixMutableChannel, width_out: PrefixMutableChannel) -> None:
        """Connect the convs of an inverted residual block: (expansion,) depthwise, projection."""
        *expansion, depthwise, projection = convs
        hidden = width_in * (depthwise.conv.out_channels // width_in.num_channels)
        if expansion:
            connect(expansion[0].conv, expansion[0].bn, width_in, hidden)
        connect(depthwise.conv, depthwise.bn, hidden, hidden)
        connect(projection.conv, projection.bn, hidden, width_out)
