"""Linear layer on the first features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pss_razor.models.dynamic_ops.active_width import active_width
from pss_razor.registry import MODELS
from pss_razor.slices import prefix_view

from mmrazor.models.architectures.dynamic_ops import DynamicLinear


@MODELS.register_module()
class SlicedLinear(DynamicLinear):
    """``DynamicLinear`` that uses ``weight[:out_features, :in_features]``."""

    def get_dynamic_params(self) -> tuple[Tensor, Tensor | None]:
        """Views of weight and bias for the active features."""
        out_features = active_width(self, "out_features", self.out_features)
        in_features = active_width(self, "in_features", self.in_features)
        weight = prefix_view(self.weight, out_features, in_features)
        return weight, None if self.bias is None else prefix_view(self.bias, out_features)

    def to_static_op(self) -> nn.Linear:
        """An ``nn.Linear`` of the active features with weights of its own."""
        weight, bias = self.get_dynamic_params()
        linear = nn.Linear(weight.size(1), weight.size(0), bias is not None, weight.device, weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
        return linear
