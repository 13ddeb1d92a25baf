"""Cross-entropy with the labels as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pss_razor.registry import METRICS

from mmengine.evaluator import BaseMetric


@METRICS.register_module()
class CrossEntropy(BaseMetric):
    """Mean cross-entropy of mmcls' predictions with the labels, in nats; reported as ``loss/cross_entropy``.

    It needs the scores of the classes (``pred_label.score``), by mmcls' heads a softmax in float32:
    a probability below 1.2e-38 counts as that, a loss of 87.3. One number an image is kept.

    Example:
        ``test_evaluator=[dict(type='mmcls.Accuracy', topk=(1, 5)), dict(type='mmrazor.CrossEntropy')]``
    """

    default_prefix = "loss"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the loss of each image."""
        for sample in data_samples:
            score: Tensor = sample["pred_label"]["score"]
            label: Tensor = sample["gt_label"]["label"]
            if label.numel() != 1:
                raise ValueError(f"CrossEntropy needs one label an image, not {label.numel()}.")
            probability = score[label.to(score.device)].float().clamp(min=torch.finfo(torch.float32).tiny)
            self.results.append({"loss": -probability.log().reshape(()).cpu()})

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """The mean over images."""
        return {"cross_entropy": float(torch.stack([result["loss"] for result in results]).double().mean())}
