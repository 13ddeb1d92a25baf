"""PCA lighting noise that stays within the pixel range."""

from __future__ import annotations

from typing import Any

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
        noisy = adjust_lighting(image, self.eigval, self.eigvec, self.alphastd, self.to_rgb)
        results["img"] = np.clip(np.rint(noisy), 0, 255).astype(image.dtype)
        return results
