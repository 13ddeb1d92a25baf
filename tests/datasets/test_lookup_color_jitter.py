"""The jitter through tables against mmcls' own, bit by bit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import pss_razor.plugin  # noqa: F401
from pss_razor.datasets import LookupColorJitter

from mmcls.datasets.transforms import ColorJitter

SETTINGS = [
    dict(brightness=0.4, contrast=0.4, saturation=0.4),
    dict(brightness=(0.0, 3.0), contrast=(0.0, 3.0), saturation=(0.0, 3.0)),
    dict(contrast=0.8),
    dict(saturation=0.8, hue=(0.1, 0.4)),  # a negative hue is an error of mmcv on numpy 2
    dict(),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_images_and_random_numbers_are_those_of_mmcls(settings):
    own, theirs = LookupColorJitter(**settings), ColorJitter(**settings)
    generator = np.random.default_rng(0)
    changed = 0
    for number in range(200):
        shape = (*generator.integers(1, 40, 2), 3)
        low, high = sorted(generator.integers(0, 256, 2))
        image = generator.integers(low, high + 1, shape, dtype=np.uint8)
        found = []
        for transform in (own, theirs):
            np.random.seed(number)
            found.append((transform(dict(img=image.copy()))["img"], np.random.randint(2**31)))
        np.testing.assert_array_equal(found[0][0], found[1][0])
        assert found[0][0].dtype == np.uint8 and found[0][1] == found[1][1]
        changed += not np.array_equal(found[0][0], image)
    assert changed >= 180 if settings else changed == 0


def test_the_image_that_it_is_given_stays():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    before = image.copy()
    LookupColorJitter(**SETTINGS[1])(dict(img=image))
    np.testing.assert_array_equal(image, before)


def test_floats_go_the_way_of_mmcls():
    image = np.random.default_rng(0).uniform(0, 255, (8, 9, 3)).astype(np.float32)
    found = []
    for kind in (LookupColorJitter, ColorJitter):
        np.random.seed(3)
        found.append(kind(brightness=0.4, contrast=0.4)(dict(img=image.copy()))["img"])
    np.testing.assert_array_equal(*found)
    assert found[0].dtype == np.float32


def test_workers_can_be_given_it():
    transform = pickle.loads(pickle.dumps(copy.deepcopy(LookupColorJitter(**SETTINGS[0]))))
    assert isinstance(transform, LookupColorJitter) and transform.contrast == (0.6, 1.4)
