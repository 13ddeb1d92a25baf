"""Cross-entropy with smoothed labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pss_razor.core import ConfigError
from pss_razor.registry import MODELS


@MODELS.register_module()
class SmoothCrossEntropyLoss(nn.Module):
    """mmcls' ``LabelSmoothLoss`` of mode ``original``, without reading the labels, which would wait for the device.

    Args:
        label_smooth_val: Share of the uniform distribution over the classes, in [0, 1).

    Example:
        ``loss=dict(type='SmoothCrossEntropyLoss', label_smooth_val=0.1)``
    """

    def __init__(self, label_smooth_val: float = 0.1) -> None:
        super().__init__()
        if not 0 <= label_smooth_val < 1:
            raise ConfigError(f"SmoothCrossEntropyLoss: label_smooth_val = {label_smooth_val} must be in [0, 1)")
        self.label_smooth_val = label_smooth_val

    def forward(self, cls_score: Tensor, label: Tensor, **kwargs: Any) -> Tensor:
        """Mean over the batch of logits (N, classes) and labels (N,), or class probabilities (N, classes)."""
        return F.cross_entropy(cls_score, label, label_smoothing=self.label_smooth_val)
