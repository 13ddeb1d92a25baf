from __future__ import annotations

import cv2
import numpy as np
import pytest

import pss_razor.plugin  # noqa: F401
from pss_razor.core import DataError
from pss_razor.datasets import ImageFolder
from pss_razor.registry import DATASETS


def make(root, **files):
    """``make(root, cat=["1.png"])``: real images in class folders."""
    for name, images in files.items():
        (root / "train" / name).mkdir(parents=True)
        for image in images:
            cv2.imwrite(str(root / "train" / name / image), np.full((4, 6, 3), 7, np.uint8))


def test_reads_images_and_classes(tmp_path):
    make(tmp_path, dog=["a.png"], cat=["x.jpg", "y.png"])
    config = dict(type="mmrazor.ImageFolder", data_root=str(tmp_path), data_prefix="train")
    dataset = DATASETS.build({**config, "pipeline": [dict(type="LoadImageFromFile")]})
    assert len(dataset) == 3
    assert tuple(dataset.metainfo["classes"]) == ("cat", "dog")  # in alphabetical order
    assert [dataset.get_data_info(index)["gt_label"] for index in range(3)] == [0, 0, 1]
    assert dataset[0]["img"].shape == (4, 6, 3)


@pytest.mark.parametrize("trailing", ["", "/"])
def test_missing_folder(tmp_path, trailing):
    with pytest.raises(DataError, match="does not exist") as error:
        ImageFolder(f"{tmp_path}/imagenet{trailing}", "train")
    assert f"{tmp_path}/imagenet/train" in str(error.value)
    assert "<class>/<image>" in str(error.value) and "data_root" in str(error.value)


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "train").touch()
    with pytest.raises(DataError, match="does not exist"):
        ImageFolder(str(tmp_path), "train")


def test_empty_folder(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"has no class folders; expected is .*one folder a class"):
        ImageFolder(str(tmp_path), "train")


def test_images_without_class_folders(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").touch()
    with pytest.raises(DataError, match="has no class folders"):
        ImageFolder(str(tmp_path), "train")


def test_class_folders_without_images(tmp_path):
    make(tmp_path, cat=[], dog=[])
    (tmp_path / "train" / "cat" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"class folders of .* have no images"):
        ImageFolder(str(tmp_path), "train")


def test_one_empty_class_folder(tmp_path):
    make(tmp_path, cat=["a.png"], dog=[])
    try:
        dataset = ImageFolder(str(tmp_path), "train")
    except DataError:
        return
    assert tuple(dataset.metainfo["classes"]) == ("cat", "dog")  # no label moves because images are missing
