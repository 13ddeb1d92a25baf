"""The network of a test that is about everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pss_razor.models import SlimmableImageClassifier
from pss_razor.registry import MODELS


@MODELS.register_module()
class StubImageClassifier(SlimmableImageClassifier):
    """A classifier with all modules of the real one that runs none: its scores are a few pixels times fixed numbers.

    Predictions are dicts of what mmcls' data samples hold, which would take most of the time.
    """

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor") -> Any:
        """Scores (N, classes) or predictions; the cost graph is read off the real network, on the meta device."""
        if inputs.device.type == "meta":
            return super().forward(inputs, data_samples, mode)
        pixels = inputs[:, :, ::56, ::56].flatten(1)
        generator = torch.Generator().manual_seed(self.input_resizer.get_dynamic_shape())
        scores = pixels @ torch.randn(pixels.size(1), self.head.num_classes, generator=generator)
        if mode == "tensor":
            return scores
        return [
            {"pred_label": {"score": score}, "gt_label": {"label": sample.gt_label.label}}
            for score, sample in zip(scores.softmax(1), data_samples, strict=True)
        ]
