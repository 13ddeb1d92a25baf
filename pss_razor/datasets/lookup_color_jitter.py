"""Colour jitter that looks values up."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pss_razor import compat
from pss_razor.registry import TRANSFORMS

from mmcls.datasets.transforms import ColorJitter

_VALUES = np.arange(256, dtype=np.float32)


@TRANSFORMS.register_module()
class LookupColorJitter(ColorJitter):
    """mmcls' ``ColorJitter`` of 8-bit images, several times as fast; what it draws, and the images, are the same.

    Brightness and contrast make of a value another one, wherever it stands: 256 of them are computed instead of the
    image's. A jitter with ``hue`` is mmcls'.

    Example:
        ``dict(type='LookupColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)``
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``results['img']`` (H, W, 3), whose channels are B, G, R."""
        image = results["img"]
        if image.dtype != np.uint8 or self.hue is not None:
            return super().transform(results)
        order, brightness, contrast, saturation, _ = compat.draw_color_jitter(self)
        for step in order:
            if step == 0 and brightness is not None:
                image = cv2.LUT(image, _blend_values(0, brightness))
            elif step == 1 and contrast is not None:
                gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                image = cv2.LUT(image, _blend_values(round(cv2.sumElems(gray)[0] / gray.size), contrast))
            elif step == 2 and saturation is not None:
                gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                image = cv2.addWeighted(image, saturation, cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), 1 - saturation, 0)
        results["img"] = image
        return results


def _blend_values(constant: int, factor: float) -> np.ndarray:
    """``factor * value + (1 - factor) * constant`` of each value; fractions are cut off, as mmcv does."""
    blended = cv2.addWeighted(_VALUES, factor, np.full_like(_VALUES, constant), 1 - factor, 0)
    return np.clip(blended, 0, 255).astype(np.uint8)
