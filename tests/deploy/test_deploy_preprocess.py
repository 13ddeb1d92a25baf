from __future__ import annotations

import sys
import warnings

import cv2
import numpy as np
import pytest
import torch

from pss_razor.core import ExportError
from pss_razor.deploy.preprocess import load_image, preprocess

PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3, "channel_order": "RGB"}
PREPROCESSING = {"mean": [123.0, 116.0, 103.0], "std": [58.0, 57.0, 56.0], "channel_order": "RGB"}


@pytest.fixture
def image():
    coarse = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, (70, 90), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def file(image, tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    return tmp_path / "image.png"


def test_load(image, file, monkeypatch):
    assert np.array_equal(load_image(file), image)
    monkeypatch.setitem(sys.modules, "cv2", None)  # as if it were not installed
    assert np.array_equal(load_image(file), image)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ExportError, match="need opencv-python or Pillow"):
        load_image(file)


@pytest.mark.parametrize("package", ["cv2", "PIL"])
def test_load_refuses(file, tmp_path, monkeypatch, package):
    if package == "PIL":
        monkeypatch.setitem(sys.modules, "cv2", None)
    for data in (b"", b"no image", file.read_bytes()[:40]):
        (tmp_path / "bad.png").write_bytes(data)
        with pytest.raises(ExportError, match=r"bad\.png cannot be decoded"):
            load_image(tmp_path / "bad.png")
    with pytest.raises(ExportError, match="does not exist or is not a file"):
        load_image(tmp_path)


def test_channel_order_and_normalisation(image):
    rgb = preprocess(image, PREPROCESSING)
    assert rgb.shape == (1, 3, 90, 70) and rgb.dtype == torch.float32
    np.testing.assert_allclose(rgb[0, 2], (image[..., 2].astype(float) - 103) / 56, atol=1e-5)
    bgr = preprocess(image, {**PREPROCESSING, "channel_order": "as loaded by cv2 (BGR)"})
    np.testing.assert_allclose(bgr[0, 0], (image[..., 2].astype(float) - 123) / 58, atol=1e-5)


@pytest.mark.parametrize(
    "steps",
    [
        {"resize_edge": 41, "resize": None, "center_crop": 32},
        {"resize_edge": None, "resize": 33, "center_crop": None},
        {"resize_edge": 101, "resize": None, "center_crop": None},
    ],
)
@pytest.mark.parametrize(
    "how",
    [
        {},
        *({"backend": "cv2", "interpolation": name} for name in ("nearest", "bilinear", "bicubic")),
        *({"backend": "pillow", "interpolation": name} for name in ("nearest", "bilinear", "bicubic")),
    ],
    ids=lambda how: "-".join(how.values()),
)
def test_equals_the_pipeline_of_mmcls(file, image, steps, how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcls.datasets.transforms import ResizeEdge
        from mmcv.transforms import CenterCrop, Resize

    result = {"img": image, "img_shape": image.shape[:2]}
    if steps["resize_edge"]:
        result = ResizeEdge(steps["resize_edge"], edge="short", **how)(result)
    if steps["resize"]:
        result = Resize((steps["resize"], steps["resize"]), **how)(result)
    if steps["center_crop"]:
        result = CenterCrop(steps["center_crop"])(result)
    pixels = preprocess(image, {**PLAIN, "resize": {**steps, **how}})[0].permute(1, 2, 0).numpy()
    assert pixels.shape == result["img"].shape
    # OpenCV and Pillow weigh in integers.
    np.testing.assert_allclose(pixels, result["img"], atol=1.0)
    assert np.abs(pixels - result["img"]).mean() < 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None}, "mean is None"),
        ({"mean": [1.0, 2.0]}, "mean"),
        ({"mean": [1.0, 2.0, float("nan")]}, "mean"),
        ({"std": [1.0, 0.0, 1.0]}, "std .* must be positive"),
        ({"std": ["1", 2, 3]}, "std"),
        ({"resize": 3}, "preprocessing.resize is 3"),
        ({"resize": {"shear": 3}}, "preprocessing.resize is"),
        ({"resize": {"resize": 10**9}}, "resize.resize is"),
        ({"resize": {"resize_edge": -1}}, "resize.resize_edge is -1"),
        ({"resize": {"resize_edge": 2**14}}, "would become"),
        ({"resize": {"resize": 8, "interpolation": "lanczos"}}, "interpolation 'lanczos'.*known are cv2 nearest"),
        ({"channel_order": None}, "channel_order is null.* set it to 'RGB' or 'BGR'"),
    ],
)
def test_refuses(image, change, message):
    with pytest.raises(ExportError, match=message):
        preprocess(image, {**PLAIN, **change})
    with pytest.raises(ExportError, match=r"uint8 \(H, W, 3\)"):
        preprocess(image[..., :1], PLAIN)
