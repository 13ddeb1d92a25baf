"""From (images, labels), as loaders of plain PyTorch yield them, to what mmcls' models take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pss_razor.core import DataError
from pss_razor.registry import MODELS

from mmcls.structures import ClsDataSample
from mmengine.model import BaseDataPreprocessor


@MODELS.register_module()
class LabelledTensorsDataPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device and leaves the images as the loader's transforms have made them.

    Copies to a GPU do not wait for it if the loader has ``pin_memory=True``.

    Args:
        num_classes: Classes that labels may have.

    Example:
        ``data_preprocessor=dict(type='LabelledTensorsDataPreprocessor', num_classes=10)``
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(non_blocking=True)
        self.num_classes = num_classes

    def forward(self, data: Sequence[Tensor], training: bool = False) -> dict[str, Any]:
        """Images and mmcls' data samples on the device.

        Args:
            data: Images (N, C, H, W), and labels (N,), or class probabilities (N, classes) of mixed images.
            training: Makes no difference.

        Raises:
            DataError: A label is none of the classes.
        """
        images, labels = data
        # On the host still, where looking at labels waits for nothing.
        if not labels.is_floating_point() and not labels.is_cuda and len(labels):
            low, high = labels.aminmax()
            if low < 0 or high >= self.num_classes:
                wrong = int(low if low < 0 else high)
                raise DataError(
                    f"an image has the label {wrong}; the network has {self.num_classes} outputs, so that labels are 0 "
                    f"to {self.num_classes - 1}: convert a network with more outputs, or number the classes from 0"
                )
        if self.device.type == "cuda" and not labels.is_cuda:
            labels = labels.pin_memory()  # the copy would wait for the device otherwise
        moved = self.cast_data(labels)
        if labels.is_floating_point():
            samples = [ClsDataSample().set_gt_score(score) for score in moved]
        else:
            samples = [ClsDataSample().set_gt_label(label) for label in moved.long().split(1)]
        return {"inputs": self.cast_data(images).to(torch.float32), "data_samples": samples}
