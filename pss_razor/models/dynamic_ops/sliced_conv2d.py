"""Convolution over the first channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pss_razor.models.dynamic_ops.active_width import active_width
from pss_razor.registry import MODELS
from pss_razor.slices import dense, prefix_view

from mmrazor.models.architectures.dynamic_ops import DynamicConv2d


@MODELS.register_module()
class SlicedConv2d(DynamicConv2d):
    """``DynamicConv2d`` that uses ``weight[:out_channels, :in_channels]``. Groups must be 1 or depthwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.groups != 1 and not self.is_depthwise:
            raise ValueError(
                f"SlicedConv2d has {self.groups} groups for {self.in_channels} -> {self.out_channels} channels; a "
                "prefix of a grouped convolution is only defined for groups = 1 or a depthwise convolution"
            )

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has a filter of its own."""
        return 1 < self.groups == self.in_channels == self.out_channels

    def get_dynamic_params(self) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Views of weight and bias for the active channels, and the padding."""
        out_channels = active_width(self, "out_channels", self.out_channels)
        in_channels = 1 if self.is_depthwise else active_width(self, "in_channels", self.in_channels)
        bias = self.bias
        return (
            prefix_view(self.weight, out_channels, in_channels),
            None if bias is None else prefix_view(bias, out_channels),
            self.padding,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W), C the active channels."""
        if torch.is_autocast_enabled("cpu") and self.is_depthwise and x.device.type == "cpu":
            # torch 2.11's bfloat16 gradient of a depthwise weight differs from run to run on a CPU, up to NaN.
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.float())
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        weight, bias, padding = self.get_dynamic_params()
        groups = x.size(1) if self.is_depthwise else 1
        return F.conv2d(x, dense(weight), bias, self.stride, padding, self.dilation, groups)

    def to_static_op(self) -> nn.Conv2d:
        """An ``nn.Conv2d`` of the active channels with weights of its own."""
        weight, bias, _ = self.get_dynamic_params()
        groups = weight.size(0) if self.is_depthwise else 1
        conv = nn.Conv2d(
            weight.size(1) * groups,
            weight.size(0),
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            groups,
            bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            conv.weight.copy_(weight)
            if bias is not None and conv.bias is not None:
                conv.bias.copy_(bias)
        return conv
