"""What is done to an image before a network sees it, as data."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from pss_razor.models import PSS

_SILENT = ("LoadImageFromFile", "PackClsInputs")


def describe_preprocessing(algorithm: PSS, dataloader: DataLoader) -> dict[str, Any]:
    """What a user of the exported networks does to 8-bit images (N, 3, H, W) before calling them.

    Args:
        algorithm: Its data preprocessor normalises.
        dataloader: Validation images; its pipeline resizes and crops.

    Returns:
        JSON-able: ``channel_order``, ``mean``, ``std``, ``formula``, and ``resize``: ``{"resize_edge", "resize",
        "center_crop"}``, done in this order, each a number of pixels or None: the shorter edge, both edges, and the
        side of the centre that is cut out. ``resize`` is None if the pipeline does anything else.
    """
    preprocessor = algorithm.data_preprocessor
    normalized = getattr(preprocessor, "_enable_normalize", False)
    return {
        "channel_order": "RGB" if getattr(preprocessor, "to_rgb", False) else "as loaded by cv2 (BGR)",
        "mean": preprocessor.mean.flatten().tolist() if normalized else [0.0, 0.0, 0.0],
        "std": preprocessor.std.flatten().tolist() if normalized else [1.0, 1.0, 1.0],
        "formula": "(image - mean) / std, pixel values 0 to 255",
        "resize": _describe_resize(dataloader),
    }


def _describe_resize(dataloader: DataLoader) -> dict[str, int | None] | None:
    resize: dict[str, int | None] = {"resize_edge": None, "resize": None, "center_crop": None}
    left = list(resize)
    for transform in getattr(getattr(dataloader.dataset, "pipeline", None), "transforms", [None]):
        match type(transform).__name__:
            case "ResizeEdge" if transform.edge == "short":
                kind, size = "resize_edge", transform.scale
            case "Resize" if not transform.keep_ratio:
                kind, size = "resize", transform.scale
            case "CenterCrop":
                kind, size = "center_crop", transform.crop_size
            case name if name in _SILENT:
                continue
            case _:
                return None
        side = size if isinstance(size, int) else size[0] if size and size[0] == size[1] else None
        if side is None or kind not in left:
            return None
        del left[: left.index(kind) + 1]
        resize[kind] = side
    return resize
