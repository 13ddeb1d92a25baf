"""PCA lighting noise that stays within the pixel range."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pss_razor.registry import TRANSFORMS

from mmcls.datasets.transforms import Lighting
from mmcv.image import adjust_lighting


@TRANSFORMS.register_module()
class ClippedLighting(Lighting):
    """mmcls' ``Lighting``, rounded and clipped: the original casts to 8 bits and wraps around (1 - 2 becomes 255).

    Example:
        ``dict(type='ClippedLighting', eigval=…, eigvec=…, alphastd=0.1)``
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the noise to ``results['img']`` (H, W, 3), in the image's channel order."""
        image = results["img"]
        if image.dtype == np.uint8 and not self.to_rgb:
            # All pixels are shifted alike, and a whole number plus the noise rounds as the noise does.
            noise = adjust_lighting(np.zeros((1, 1, 3), np.uint8), self.eigval, self.eigvec, self.alphastd, False)
            results["img"] = cv2.transform(image, np.column_stack([np.eye(3), np.rint(noise[0, 0])]))
            return results
        noisy = adjust_lighting(image, self.eigval, self.eigvec, self.alphastd, self.to_rgb)
        results["img"] = np.clip(np.rint(noisy), 0, 255).astype(image.dtype)
        return results
