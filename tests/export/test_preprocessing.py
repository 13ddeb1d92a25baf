"""What is stated of the preprocessing gives a file the pixels that the validation pipeline gives it."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pss_razor.deploy.preprocess import load_image, preprocess
from pss_razor.export.preprocessing import describe_preprocessing
from pss_razor.registry import DATASETS, MODELS

from mmcls.datasets import CIFAR10
from mmengine.dataset import default_collate

PACK = dict(type="mmcls.PackClsInputs")
LOAD = dict(type="LoadImageFromFile")
BICUBIC = dict(backend="pillow", interpolation="bicubic")


@pytest.fixture
def folder(tmp_path):
    """A picture that is different in each channel and direction, in a folder for its class."""
    y, x = np.mgrid[:70, :90]
    image = np.stack([200 + 0 * x, 2 * x, y], axis=-1).astype(np.uint8)  # R, G, B
    (tmp_path / "val" / "a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "val" / "a" / "image.png"), image[..., ::-1])
    return tmp_path


def stated_and_real(dataset, to_rgb, file):
    preprocessor = MODELS.build(
        dict(type="mmcls.ClsDataPreprocessor", mean=[10.0, 20.0, 30.0], std=[3.0, 4.0, 5.0], to_rgb=to_rgb)
    )
    loader = DataLoader(dataset, 1, collate_fn=default_collate)
    stated = describe_preprocessing(SimpleNamespace(data_preprocessor=preprocessor), loader)
    real = preprocessor(default_collate([dataset[0]]), False)["inputs"]
    return stated, preprocess(load_image(file), stated), real


@pytest.mark.parametrize("to_rgb", [True, False])
@pytest.mark.parametrize(
    "steps",
    [
        [],
        [dict(type="mmcls.ResizeEdge", scale=40, edge="short"), dict(type="mmcls.CenterCrop", crop_size=32)],
        [dict(type="mmcls.ResizeEdge", scale=40, edge="short", **BICUBIC), dict(type="mmcls.CenterCrop", crop_size=32)],
        [dict(type="mmcls.Resize", scale=48, interpolation="nearest")],
    ],
    ids=["none", "edge", "pillow", "nearest"],
)
def test_files(folder, to_rgb, steps):
    dataset = DATASETS.build(
        dict(type="ImageFolder", data_root=str(folder), data_prefix="val", pipeline=[LOAD, *steps, PACK])
    )
    stated, pixels, real = stated_and_real(dataset, to_rgb, folder / "val" / "a" / "image.png")
    assert stated["channel_order"] == ("RGB" if to_rgb else "BGR")
    assert pixels.shape == real.shape
    assert (pixels - real).abs().max() <= 1 / 3 + 1e-5  # a grey level, of the smallest deviation


class OneOfCIFAR10(CIFAR10):
    """CIFAR-10 with a picture of our own instead of a download; its arrays are R, G, B."""

    def load_data_list(self):
        return [{"img": load_image(self.data_root), "gt_label": 0}]


@pytest.mark.parametrize("to_rgb", [True, False])
def test_arrays_of_a_dataset(folder, to_rgb):
    file = folder / "val" / "a" / "image.png"
    pipeline = [dict(type="mmcls.Resize", scale=64), PACK]
    dataset = OneOfCIFAR10(data_prefix="", test_mode=True, data_root=str(file), pipeline=pipeline)
    stated, pixels, real = stated_and_real(dataset, to_rgb, file)
    # The configs of CIFAR-10 have to_rgb=False: the images are R, G, B already.
    assert stated["channel_order"] == ("BGR" if to_rgb else "RGB")
    assert (pixels - real).abs().max() <= 1 / 3 + 1e-5
    # 200 is red's.
    red = 0 if not to_rgb else 2
    expected = (200 - [10, 20, 30][red]) / [3, 4, 5][red]
    torch.testing.assert_close(pixels[0, red], torch.full((64, 64), expected))


def test_a_wrapped_dataset(folder):
    steps = [dict(type="mmcls.ResizeEdge", scale=40, edge="short"), dict(type="mmcls.CenterCrop", crop_size=32)]
    inner = dict(type="ImageFolder", data_root=str(folder), data_prefix="val", pipeline=[LOAD, *steps, PACK])
    dataset = DATASETS.build(dict(type="mmcls.KFoldDataset", dataset=inner, num_splits=1, test_mode=True))
    stated, pixels, real = stated_and_real(dataset, True, folder / "val" / "a" / "image.png")
    assert stated["resize"]["resize_edge"] == 40
    assert (pixels - real).abs().max() <= 1 / 3 + 1e-5


def test_transforms_that_are_not_known(folder):
    pipeline = [LOAD, dict(type="mmcls.ColorJitter", brightness=0.5), PACK]
    dataset = DATASETS.build(dict(type="ImageFolder", data_root=str(folder), data_prefix="val", pipeline=pipeline))
    preprocessor = MODELS.build(dict(type="mmcls.ClsDataPreprocessor", to_rgb=True))
    loader = DataLoader(dataset, 1, collate_fn=default_collate)
    stated = describe_preprocessing(SimpleNamespace(data_preprocessor=preprocessor), loader)
    assert stated["channel_order"] is None and stated["resize"] is None
