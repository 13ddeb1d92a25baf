"""ReLU6 in place, without a copy of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pss_razor.registry import MODELS


class _LeanReLU6(torch.autograd.Function):
    """The gradient is 0 where the result is 0 or 6, so that backward needs the result only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(F.relu6(x, inplace=True))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, result, 0.0, 6.0)


@MODELS.register_module()
class LeanReLU6(nn.ReLU6):
    """``nn.ReLU6`` with the same values and gradients, whose backward pass works on its result.

    torch's own keeps its input for the backward pass, as a copy if it works in place. The result is kept by the next
    layer anyway: a third of the activations of a MobileNetV2 need not be stored.

    Args:
        inplace: Overwrite the input; otherwise this is ``nn.ReLU6``.

    Example:
        ``act_cfg=dict(type='mmrazor.LeanReLU6')``
    """

    def forward(self, input: Tensor) -> Tensor:
        """Clip to [0, 6]."""
        if not self.inplace or not torch.is_grad_enabled():
            return super().forward(input)
        return _LeanReLU6.apply(input)

    def to_static_op(self) -> nn.ReLU6:
        """An ``nn.ReLU6``."""
        return nn.ReLU6(self.inplace)
