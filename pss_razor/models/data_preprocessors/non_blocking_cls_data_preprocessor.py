"""From a batch on the host to one on the device, without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pss_razor.registry import MODELS

from mmcls.models.utils import ClsDataPreprocessor


@MODELS.register_module()
class NonBlockingClsDataPreprocessor(ClsDataPreprocessor):
    """mmcls' ``ClsDataPreprocessor`` whose copies to a GPU do not wait.

    The original's copies wait until the device has finished the previous training step, so that it idles while the host
    prepares the next one. Images must come from a data loader with ``pin_memory=True``; labels are pinned here. The
    results are the same.

    Example:
        ``data_preprocessor=dict(type='NonBlockingClsDataPreprocessor', mean=…, std=…, to_rgb=True)``
    """

    def cast_data(self, data: Any) -> Any:
        """Tensors in ``data`` on the device of the model."""
        if isinstance(data, Tensor):
            return data.to(self.device, non_blocking=True)
        return super().cast_data(data)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Copy the labels to the device in one piece, then proceed as ``ClsDataPreprocessor``."""
        samples = data.get("data_samples") or []
        labels = [sample.gt_label.label for sample in samples if "label" in sample.get("gt_label", ())]
        # A batch that is processed a second time has its labels on the device already.
        if self.device.type == "cuda" and labels and len(labels) == len(samples) and not labels[0].is_cuda:
            on_device = torch.cat(labels).pin_memory().to(self.device, non_blocking=True)
            for sample, label in zip(samples, on_device.split([len(label) for label in labels]), strict=True):
                sample.set_gt_label(label)
        return super().forward(data, training)
