"""A random crop of a large photograph, which is not decoded at its full size."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image

from pss_razor.core import DataError
from pss_razor.registry import TRANSFORMS

from mmcls.datasets.transforms import RandomResizedCrop
from mmcv.image import imresize
from mmengine import fileio

_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# EXIF's codes of images that lie on their side.
_TURNED = (5, 6, 7, 8)
# What Pillow raises of a header, or of EXIF in it, that OpenCV may still make an image of.
_FAULTS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


@TRANSFORMS.register_module()
class LoadRandomResizedCrop(RandomResizedCrop):
    """``LoadImageFromFile`` and mmcls' ``RandomResizedCrop`` in one, for JPEG files much larger than what is cut out.

    The crop is that of the two, of the same random numbers. Where it has at least twice, four or eight times the pixels
    of the result in each direction, the file is decoded at a half, a quarter or an eighth of its size, which takes less
    time and memory. The result is then smoother than theirs, which leaves pixels out, and may be shifted by half a
    pixel. All else is as with the two: smaller crops, and files of other kinds.

    Args:
        scale: Size of the result, in pixels; and what else ``RandomResizedCrop`` takes.
        backend_args: Of mmengine's ``fileio.get``, by which the file is read.
        **kwargs: Of ``RandomResizedCrop``.

    Raises:
        DataError: A file is no image.

    Example:
        ``dict(type='LoadRandomResizedCrop', scale=224, crop_ratio_range=(0.25, 1.0))``
    """

    def __init__(self, scale: Any, backend_args: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(scale, **kwargs)
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Set ``img`` (H, W, 3) uint8, in the order B, G, R, and the shapes, from the file ``results['img_path']``."""
        path = results["img_path"]
        content = fileio.get(path, backend_args=self.backend_args)
        size = _jpeg_size(content)
        if size is not None:
            state = np.random.get_state()
            crop = self._draw(size)
            factor = max(f for f in _FLAGS if f == 1 or (crop[2] >= f * self.scale[0] and crop[3] >= f * self.scale[1]))
            image = _decode(content, factor, path)
            if image.shape[:2] != tuple(-(-side // factor) for side in size):
                np.random.set_state(state)  # OpenCV reads this header in another way
                size = None
        if size is None:
            image, factor = _decode(content, 1, path), 1
            size = image.shape[:2]
            crop = self._draw(size)
        top, left, height, width = crop
        rows, columns = (
            slice(round(start / factor), round((start + length) / factor))
            for start, length in ((top, height), (left, width))
        )
        image = imresize(
            image[rows, columns], tuple(self.scale[::-1]), interpolation=self.interpolation, backend=self.backend
        )
        results.update(img=image, img_shape=image.shape, ori_shape=tuple(size))
        return results

    def _draw(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop; of the image, only its size is looked at."""
        return self.rand_crop_params(np.broadcast_to(np.uint8(0), size))


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG file as it is shown, from its header; None of others, and of a header with faults."""
    if content[:2] != b"\xff\xd8":
        return None
    try:
        with Image.open(io.BytesIO(content)) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            return image.size if turned else image.size[::-1]
    except _FAULTS:
        return None


def _decode(content: bytes, factor: int, path: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS[factor]) if content else None
    if image is None:
        raise DataError(f"{path} cannot be decoded as an image; remove it, or get it again")
    return image
