"""From an image file to what a deployed network takes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pss_razor.core import ExportError
from pss_razor.deploy.static_net import IMAGE_CHANNELS, show

_MAX_SIDE = 2**14
_RESIZE_STEPS = {"resize_edge", "resize", "center_crop"}


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an image file with OpenCV, or with Pillow where OpenCV is not installed.

    Returns:
        RGB, uint8 (H, W, 3); grey images become RGB, transparency is dropped.

    Raises:
        ExportError: The file is missing or not an image, or neither package is installed.
    """
    if not Path(path).is_file():
        raise ExportError(f"image {path} does not exist or is not a file")
    try:
        import cv2
    except ImportError:
        return _load_with_pillow(path)
    image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR) if os.path.getsize(path) else None
    if image is None:
        raise ExportError(f"image {path} cannot be decoded; it is damaged or of an unknown format")
    return np.ascontiguousarray(image[..., ::-1])


def preprocess(image: np.ndarray, preprocessing: Mapping[str, Any]) -> Tensor:
    """Resizes, crops and normalises an image as for validation.

    Args:
        image: RGB, uint8 (H, W, 3).
        preprocessing: Of a bundle or manifest: ``mean`` and ``std`` (three numbers each, for pixel values 0 to 255),
            ``channel_order`` ("RGB", or anything that begins otherwise for BGR), and ``resize``, of which
            ``resize_edge`` is the length of the shorter edge in pixels, ``resize`` that of both, and ``center_crop``
            the side of the centre that is cut out, each None if it is not done. Without ``resize`` the network
            resizes the whole image.

    Returns:
        float32 (1, 3, H', W').

    Raises:
        ExportError: The image has another shape or dtype, or the preprocessing cannot be.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != IMAGE_CHANNELS:
        raise ExportError(f"the image is {image.dtype} {image.shape}; it must be uint8 (H, W, {IMAGE_CHANNELS})")
    mean, std = (_three_numbers(preprocessing, name) for name in ("mean", "std"))
    if not all(value > 0 for value in std):
        raise ExportError(f"preprocessing.std is {std}; it must be positive")
    if not str(preprocessing.get("channel_order", "RGB")).startswith("RGB"):
        image = image[..., ::-1]
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    pixels = _resize(pixels, preprocessing.get("resize") or {})
    return (pixels - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def _load_with_pillow(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ExportError(f"images need opencv-python or Pillow ({error}): pip install Pillow") from None
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ExportError(f"image {path} cannot be decoded ({show(str(error))})") from error


def _three_numbers(preprocessing: Mapping[str, Any], name: str) -> list[float]:
    values = preprocessing.get(name)
    good = isinstance(values, list | tuple) and len(values) == IMAGE_CHANNELS
    if not good or not all(isinstance(value, int | float) and math.isfinite(value) for value in values or ()):
        raise ExportError(f"preprocessing.{name} is {show(values)}; it must be three numbers")
    return [float(value) for value in values or ()]


def _resize(pixels: Tensor, steps: Any) -> Tensor:
    """mmcls's ResizeEdge, Resize and CenterCrop, in this order."""
    if not isinstance(steps, Mapping) or not steps.keys() <= _RESIZE_STEPS:
        raise ExportError(f"preprocessing.resize is {show(steps)}; it may have {', '.join(sorted(_RESIZE_STEPS))}")
    for name, side in steps.items():
        if side is not None and (type(side) is not int or not 1 <= side <= _MAX_SIDE):
            raise ExportError(f"preprocessing.resize.{name} is {show(side)}; it must be 1 to {_MAX_SIDE} pixels")
    height, width = pixels.shape[2:]
    if edge := steps.get("resize_edge"):
        short = min(height, width)
        height, width = int(edge * height / short), int(edge * width / short)
    if side := steps.get("resize"):
        height = width = side
    if max(height, width) > _MAX_SIDE:
        raise ExportError(f"an image would become {width} x {height} pixels; {_MAX_SIDE} are the most")
    if (height, width) != pixels.shape[2:]:
        pixels = F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)
    if side := steps.get("center_crop"):
        top, left = (max(0, round((length - side) / 2)) for length in (height, width))
        pixels = pixels[:, :, top : top + side, left : left + side]
    return pixels
