"""Packed images against mmcls' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pss_razor.datasets import PackPlanes

from mmcls.datasets.transforms import PackClsInputs

FLIPS = {
    "as it is": lambda image: image,
    "flipped": lambda image: np.flip(image, 1),
    "upside down": lambda image: np.flip(image, 0),
    "turned": lambda image: image[::-1, ::-1],
    "a part": lambda image: image[2:, 1:-3],
    "a flipped part": lambda image: image[2:, 7:1:-1],
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("flip", FLIPS)
def test_the_same_as_mmcls(flip, channels, dtype):
    shape = (11, 13) if channels is None else (11, 13, channels)
    image = FLIPS[flip](np.random.default_rng(0).integers(0, 256, shape).astype(dtype))
    results = dict(img=image, gt_label=3, img_path="a.JPEG", ori_shape=(20, 30), img_shape=image.shape[:2], flip=True)
    own, theirs = (kind()(dict(results)) for kind in (PackPlanes, PackClsInputs))
    assert own["inputs"].dtype == theirs["inputs"].dtype and own["inputs"].is_contiguous()
    assert torch.equal(own["inputs"], theirs["inputs"])
    assert own["data_samples"].metainfo == theirs["data_samples"].metainfo
    assert own["data_samples"].gt_label.label.tolist() == [3]
    assert set(own) == {"inputs", "data_samples"}


def test_images_do_not_share_memory():
    """A planar image would be a view of the one that was loaded; the next image must not change it."""
    image = np.zeros((4, 5, 3), np.uint8)
    packed = PackPlanes()(dict(img=image))["inputs"]
    image += 1
    assert not packed.any()


def test_without_an_image():
    assert set(PackPlanes()(dict(gt_label=1))) == {"data_samples"}
