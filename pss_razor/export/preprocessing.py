"""A JSON-able description of what is done to an image before a network sees it."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from pss_razor import compat
from pss_razor.models import PSS

# Transforms that neither change colours nor sizes; mmcv's loading gives B, G, R.
_LOADING = "LoadImageFromFile"
_SILENT = (_LOADING, "PackClsInputs", "PackPlanes")
_RESIZING = ("ResizeEdge", "Resize", "CenterCrop")


def describe_preprocessing(algorithm: PSS, dataloader: DataLoader) -> dict[str, Any]:
    """What a user of the exported networks does to 8-bit images (N, 3, H, W) before calling them.

    Args:
        algorithm: Its data preprocessor normalises.
        dataloader: Validation images; its pipeline resizes and crops. A dataset that holds arrays instead of files has
            them in R, G, B, as those of mmcls and torchvision, unless it says otherwise by an attribute
            ``channel_order``.

    Returns:
        JSON-able: ``channel_order`` that a network expects, ``"RGB"`` or ``"BGR"``; None if the pipeline has
        transforms that may change it. ``mean``, ``std``, ``formula``. ``resize``: ``{"resize_edge", "resize",
        "center_crop"}``, done in this order, each a number of pixels or None: the shorter edge, both edges, and the
        side of the centre that is cut out; and ``interpolation`` and ``backend`` of resizing, as mmcv's ``imresize``
        has them. ``resize`` is None if the pipeline does anything else.
    """
    preprocessor = algorithm.data_preprocessor
    normalized = compat.normalizes(preprocessor)
    order = _describe_channel_order(dataloader)
    if order is not None and getattr(preprocessor, "to_rgb", False):
        order = order[::-1]  # to_rgb swaps RGB, too
    return {
        "channel_order": order,
        "mean": preprocessor.mean.flatten().tolist() if normalized else [0.0, 0.0, 0.0],
        "std": preprocessor.std.flatten().tolist() if normalized else [1.0, 1.0, 1.0],
        "formula": "(image - mean) / std, pixel values 0 to 255",
        "resize": _describe_resize(dataloader),
    }


def _transforms(dataloader: DataLoader) -> tuple[Any, list[Any]]:
    """The innermost dataset, of a wrapper such as mmcls.KFoldDataset, and its transforms."""
    dataset: Any = dataloader.dataset
    while not hasattr(dataset, "pipeline") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return dataset, list(getattr(getattr(dataset, "pipeline", None), "transforms", [None]))


def _describe_channel_order(dataloader: DataLoader) -> str | None:
    """Channel order of the images that the data preprocessor gets; None if unknown."""
    dataset, transforms = _transforms(dataloader)
    names = {type(transform).__name__ for transform in transforms}
    if not names <= {*_SILENT, *_RESIZING}:
        return None
    if _LOADING not in names:
        return getattr(dataset, "channel_order", "RGB")
    colored = all(t.color_type == "color" for t in transforms if type(t).__name__ == _LOADING)
    return "BGR" if colored else None


def _describe_resize(dataloader: DataLoader) -> dict[str, Any] | None:
    resize: dict[str, Any] = {"resize_edge": None, "resize": None, "center_crop": None}
    left = list(resize)
    how = {("bilinear", "cv2")}
    for transform in _transforms(dataloader)[1]:
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
        if kind != "center_crop":
            own = (transform.interpolation, transform.backend)
            how = {own} if resize["resize_edge"] is None else how | {own}
        resize[kind] = side
    if len(how) > 1:  # two resizes of two kinds
        return None
    ((interpolation, backend),) = how
    return {**resize, "interpolation": interpolation, "backend": backend}
