"""Handwritten digits that ship with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from pss_razor.core import DataError
from pss_razor.registry import DATASETS

from mmcls.datasets import BaseDataset

# Fixed, so that results of different runs are on the same 360 images.
_SPLIT_SEED = 0
_TRAIN_SIZE = 1437


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 handwritten digits of 8 × 8 pixels (UCI ML repository), in a fixed split of 1,437 / 360. No download.

    Images are 8-bit with three equal channels, so that pipelines for colour images work.

    Args:
        split: ``"train"`` or ``"test"``.
        **kwargs: Of mmcls' ``BaseDataset``: ``pipeline``, ``test_mode``, ``indices``, …

    Example:
        ``dataset=dict(type='Digits', split='train', pipeline=[dict(type='Resize', scale=32), …])``
    """

    METAINFO = {"classes": tuple("0123456789")}

    def __init__(self, split: str, **kwargs: Any) -> None:
        if split not in ("train", "test"):
            raise DataError(f"Digits has no split {split!r}; choose 'train' or 'test'")
        self.split = split
        super().__init__(ann_file="", **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images (8, 8, 3) uint8 and labels."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
        chosen = order[:_TRAIN_SIZE] if self.split == "train" else order[_TRAIN_SIZE:]
        pixels = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8).repeat(3, axis=3)
        return [self._sample(pixels[i], int(labels[i])) for i in chosen]

    @staticmethod
    def _sample(image: np.ndarray, label: int) -> dict[str, Any]:
        return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2], gt_label=label)

    def extra_repr(self) -> list[str]:
        """The split, for logs."""
        return [f"Split: \t{self.split}"]
