"""From an image file to what a deployed network takes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pss_razor.core import ExportError, is_number
from pss_razor.static.static_net import IMAGE_CHANNELS, show

_MAX_SIDE = 2**14
_RESIZE_STEPS = {"resize_edge", "resize", "center_crop"}
# How pipelines resize -> how torch does the same. OpenCV samples, Pillow averages over what a smaller pixel covers.
_INTERPOLATIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("cv2", "nearest"): dict(nearest="cv2"),
    ("cv2", "bilinear"): dict(mode="bilinear", align_corners=False),
    ("cv2", "bicubic"): dict(mode="bicubic", align_corners=False),
    ("cv2", "area"): dict(mode="area"),
    ("pillow", "nearest"): dict(nearest="pillow"),
    ("pillow", "bilinear"): dict(mode="bilinear", align_corners=False, antialias=True),
    ("pillow", "bicubic"): dict(mode="bicubic", align_corners=False, antialias=True),
}


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
            ``channel_order`` ("RGB" or "BGR"), and ``resize``, of which ``resize_edge`` is the length of the shorter
            edge in pixels, ``resize`` that of both, and ``center_crop`` the side of the centre that is cut out, each
            None if it is not done, with the ``interpolation`` and ``backend`` of the pipeline. Without ``resize`` the
            network resizes the whole image.

    Returns:
        float32 (1, 3, H', W'), normalised. The pipeline resizes in integers, so its pixels may differ by about one grey
        level.

    Raises:
        ExportError: The image has another shape or dtype, or the preprocessing is invalid.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != IMAGE_CHANNELS:
        raise ExportError(f"the image is {image.dtype} {image.shape}; it must be uint8 (H, W, {IMAGE_CHANNELS})")
    mean, std = (_three_numbers(preprocessing, name) for name in ("mean", "std"))
    if not all(value > 0 for value in std):
        raise ExportError(f"preprocessing.std is {std}; it must be positive")
    order = preprocessing.get("channel_order", "RGB")
    if order is None:
        raise ExportError(
            "preprocessing.channel_order is null: the validation pipeline had transforms that may change the order of "
            "colours; set it to 'RGB' or 'BGR', as the network's images were in training"
        )
    if not str(order).startswith("RGB"):
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
    if not good or not all(is_number(value) for value in values or ()):
        raise ExportError(f"preprocessing.{name} is {show(values)}; it must be three numbers")
    return [float(value) for value in values or ()]


def _resize(pixels: Tensor, steps: Any) -> Tensor:
    """mmcls's ResizeEdge, Resize and CenterCrop, in this order."""
    known = {*_RESIZE_STEPS, "interpolation", "backend"}
    if not isinstance(steps, Mapping) or not steps.keys() <= known:
        raise ExportError(f"preprocessing.resize is {show(steps)}; it may have {', '.join(sorted(known))}")
    sides = {name: side for name, side in steps.items() if name in _RESIZE_STEPS}
    for name, side in sides.items():
        if side is not None and (type(side) is not int or not 1 <= side <= _MAX_SIDE):
            raise ExportError(f"preprocessing.resize.{name} is {show(side)}; it must be 1 to {_MAX_SIDE} pixels")
    how = (steps.get("backend", "cv2"), steps.get("interpolation", "bilinear"))
    if how not in _INTERPOLATIONS:
        raise ExportError(
            f"preprocessing.resize has backend {show(how[0])} and interpolation {show(how[1])}; resize images as the "
            f"validation pipeline does it, known are {', '.join(' '.join(pair) for pair in _INTERPOLATIONS)}"
        )
    if edge := sides.get("resize_edge"):
        height, width = pixels.shape[2:]
        short = min(height, width)
        pixels = _interpolate(pixels, int(edge * height / short), int(edge * width / short), _INTERPOLATIONS[how])
    if side := sides.get("resize"):
        pixels = _interpolate(pixels, side, side, _INTERPOLATIONS[how])
    if side := sides.get("center_crop"):
        top, left = (max(0, round((length - side) / 2)) for length in pixels.shape[2:])
        pixels = pixels[:, :, top : top + side, left : left + side]
    return pixels


def _interpolate(pixels: Tensor, height: int, width: int, how: Mapping[str, Any]) -> Tensor:
    """Resize to pixels of 8 bits, as the pipeline has them."""
    if max(height, width) > _MAX_SIDE:
        raise ExportError(f"an image would become {width} x {height} pixels; {_MAX_SIDE} are the most")
    if (height, width) == tuple(pixels.shape[2:]):
        return pixels
    if "nearest" in how:
        rows, columns = (
            torch.tensor(_nearest(how["nearest"], old, new))
            for new, old in zip((height, width), pixels.shape[2:], strict=True)
        )
        return pixels[:, :, rows][:, :, :, columns]
    return F.interpolate(pixels, size=(height, width), **how).round().clamp(0, 255)


def _nearest(backend: str, old: int, new: int) -> list[int]:
    """The pixel that each new one takes: at its left edge (OpenCV), or at its middle (Pillow), rounded as they do it.

    torch's own nearest neighbours differ from both where an edge falls on an edge.
    """
    if backend == "cv2":
        positions = [i * (1 / (new / old)) for i in range(new)]
    else:
        positions = list(itertools.accumulate([old / new] * (new - 1), initial=old / new * 0.5))
    return [min(int(position), old - 1) for position in positions]
