from __future__ import annotations

import hashlib

import numpy as np
import pytest

import pss_razor.plugin  # noqa: F401
from pss_razor.core import DataError
from pss_razor.datasets import Digits


@pytest.fixture(scope="module")
def splits():
    return {split: Digits(split, pipeline=[]) for split in ("train", "test")}


def contents(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def test_sizes(splits):
    assert (len(splits["train"]), len(splits["test"])) == (1437, 360)


def test_images(splits):
    for dataset in splits.values():
        images = np.stack([info["img"] for info in contents(dataset)])
        assert images.dtype == np.uint8 and images.shape[1:] == (8, 8, 3)
        assert images.min() == 0 and images.max() == 255  # scikit-learn's go from 0 to 16
        assert (images[..., :1] == images).all()


def test_labels(splits):
    for dataset in splits.values():
        assert dataset.metainfo["classes"] == tuple("0123456789")
        assert {info["gt_label"] for info in contents(dataset)} == set(range(10))


def test_split_is_the_same_for_everybody(splits):
    # Figures of different runs and machines are on the same 360 images.
    def checksum(dataset):
        labels = bytes(info["gt_label"] for info in contents(dataset))
        return hashlib.sha256(labels).hexdigest()[:16]

    assert checksum(splits["train"]) == "2b11282ac0c9af15"
    assert checksum(splits["test"]) == "78326c297ed5b04d"


def test_splits_are_disjoint_and_complete(splits):
    from sklearn.datasets import load_digits

    def images_of(dataset):
        return {info["img"].tobytes() for info in contents(dataset)}

    train, test = images_of(splits["train"]), images_of(splits["test"])
    assert not train & test
    assert len(train | test) == len({image.tobytes() for image in load_digits().images})


def test_indices_take_the_first():
    assert len(Digits("train", pipeline=[], indices=96)) == 96


def test_unknown_split():
    with pytest.raises(DataError, match="no split 'val'; choose 'train' or 'test'"):
        Digits("val")


def test_repr_names_the_split():
    assert "test" in repr(Digits("test", pipeline=[], indices=3))
