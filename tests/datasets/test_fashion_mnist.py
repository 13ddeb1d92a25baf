from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

import pss_razor.plugin  # noqa: F401
from pss_razor import compat
from pss_razor.core import DataError
from pss_razor.datasets import FashionMNIST
from pss_razor.evaluation.results import describe_images
from pss_razor.registry import DATASETS

REAL = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "fashion_mnist"
NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
SIZES = {"train": 30, "t10k": 12}


def pixels(part: str) -> np.ndarray:
    return np.random.default_rng(len(part)).integers(0, 256, (SIZES[part], 28, 28), dtype=np.uint8)


def labels(part: str) -> np.ndarray:
    return (np.arange(SIZES[part]) * 7 % 10).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, gzipped: bool = True, names: list[str] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        part, kind = name.split("-")[:2]
        content = idx(pixels(part) if kind == "images" else labels(part))
        if gzipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def images_of(dataset: FashionMNIST) -> np.ndarray:
    return np.stack([dataset.get_data_info(i)["img"] for i in range(len(dataset))])


def labels_of(dataset: FashionMNIST) -> list[int]:
    return [dataset.get_data_info(i)["gt_label"] for i in range(len(dataset))]


@pytest.fixture(autouse=True)
def _neither_network_nor_debian(monkeypatch, tmp_path):
    monkeypatch.setattr("pss_razor.datasets.fashion_mnist._DEBIAN", tmp_path / "usr")
    monkeypatch.setattr(compat, "download", lambda dataset: pytest.fail("tried to download"))


@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"], ids=["any folder", "torchvision"])
@pytest.mark.parametrize("gzipped", [True, False])
def test_images_and_labels(tmp_path, below, gzipped):
    write(tmp_path / below, gzipped)
    for part, test_mode in (("train", False), ("t10k", True)):
        dataset = FashionMNIST(str(tmp_path), test_mode)
        images = images_of(dataset)
        assert images.dtype == np.uint8 and images.shape == (SIZES[part], 28, 28, 3)
        for channel in range(3):
            np.testing.assert_array_equal(images[..., channel], pixels(part))
        assert labels_of(dataset) == labels(part).tolist()
    assert len(dataset.metainfo["classes"]) == 10


def test_debians_folder_is_taken_before_a_download(tmp_path):
    write(tmp_path / "usr")
    assert len(FashionMNIST(str(tmp_path / "data"), test_mode=False)) == 30


def test_own_folder_comes_first(tmp_path):
    write(tmp_path / "usr")
    write(tmp_path / "data", names=NAMES[:2])
    with pytest.raises(DataError, match=r"data has neither t10k-images-idx3-ubyte.gz nor t10k-images-idx3-ubyte,"):
        FashionMNIST(str(tmp_path / "data"), test_mode=True)


def test_built_from_a_config_with_a_pipeline(tmp_path):
    dataset = DATASETS.build(
        dict(
            type="FashionMNIST",
            data_prefix=str(write(tmp_path)),
            test_mode=False,
            span=[2, 5],
            padding=2,
            pipeline=[dict(type="mmcls.PackClsInputs")],
        )
    )
    assert type(dataset) is FashionMNIST
    item = dataset[1]
    assert item["inputs"].shape == (3, 32, 32)
    np.testing.assert_array_equal(item["inputs"][0, 2:30, 2:30], pixels("train")[3])
    assert item["inputs"].sum() == 3 * int(pixels("train")[3].sum()), "the padding is black"
    assert int(item["data_samples"].gt_label.label) == labels("train")[3]


class TestSpan:
    def test_is_that_part_in_order(self, tmp_path):
        dataset = FashionMNIST(str(write(tmp_path)), test_mode=False, span=(10, 25))
        np.testing.assert_array_equal(images_of(dataset)[..., 0], pixels("train")[10:25])
        assert labels_of(dataset) == labels("train")[10:25].tolist()

    def test_indices_count_within_it(self, tmp_path):
        dataset = FashionMNIST(str(write(tmp_path)), test_mode=False, span=(10, 25), indices=-2)
        np.testing.assert_array_equal(images_of(dataset)[..., 0], pixels("train")[23:25])

    def test_is_named_in_results_and_logs(self, tmp_path):
        dataset = FashionMNIST(str(write(tmp_path)), test_mode=False, span=(10, 25))
        assert "span=(10, 25)" in describe_images(dataset) and "15 images" in describe_images(dataset)
        assert "(10, 25)" in repr(dataset)

    @pytest.mark.parametrize("span", [(5, 5), (-1, 5), (1, 2, 3)])
    def test_that_makes_no_sense(self, tmp_path, span):
        with pytest.raises(DataError, match="must be the first image and"):
            FashionMNIST(str(tmp_path), test_mode=False, span=span)

    def test_beyond_the_images(self, tmp_path):
        with pytest.raises(DataError, match=r"span = \(0, 31\): .*train-images-idx3-ubyte.gz has 30 images"):
            FashionMNIST(str(write(tmp_path)), test_mode=False, span=(0, 31))


class TestNothingThere:
    def test_without_download(self, tmp_path):
        with pytest.raises(
            DataError, match=rf"is not in {tmp_path}; set data_prefix .*train-images.* or download=True"
        ):
            FashionMNIST(str(tmp_path), test_mode=False, download=False)

    def test_downloads(self, tmp_path, monkeypatch):
        monkeypatch.setattr(compat, "download", lambda dataset: write(Path(dataset.data_prefix["root"]), gzipped=False))
        assert len(FashionMNIST(str(tmp_path / "new"), test_mode=True)) == 12

    def test_without_a_network(self, tmp_path, monkeypatch):
        def unreachable(dataset):
            raise OSError("Name or service not known")

        monkeypatch.setattr(compat, "download", unreachable)
        with pytest.raises(DataError, match=r"cannot be downloaded into .*Name or service.*dataset-fashion-mnist"):
            FashionMNIST(str(tmp_path), test_mode=False)


class TestDamaged:
    @pytest.mark.parametrize(
        ("name", "damage", "says"),
        [
            ("train-images-idx3-ubyte.gz", lambda b: b[: len(b) // 2], "end-of-stream"),
            ("train-images-idx3-ubyte.gz", lambda b: b[:-8] + bytes(4) + b[-4:], "CRC"),
            ("train-images-idx3-ubyte.gz", lambda b: b"<html>", "does not begin as an IDX file"),
            ("train-images-idx3-ubyte.gz", lambda b: gzip.compress(b"<html>"), "does not begin as an IDX file"),
            ("train-labels-idx1-ubyte.gz", lambda b: gzip.compress(gzip.decompress(b)[:-1]), "30 bytes, and it has 29"),
            ("train-labels-idx1-ubyte.gz", lambda b: gzip.compress(gzip.decompress(b) + b"0"), "and it has more"),
            ("train-labels-idx1-ubyte.gz", lambda b: gzip.compress(idx(pixels("train"))), "does not begin as an IDX"),
            ("train-labels-idx1-ubyte.gz", lambda b: gzip.compress(b"\0\0\x08\x01" + b"\xff" * 4), "4294967295 items"),
            ("train-labels-idx1-ubyte.gz", lambda b: gzip.compress(idx(labels("t10k"))), "30 images, .* 12 labels"),
            ("train-labels-idx1-ubyte.gz", lambda b: gzip.compress(idx(labels("train") + 1)), "labels up to 10"),
        ],
    )
    def test_is_named_with_the_remedy(self, tmp_path, name, damage, says):
        file = write(tmp_path) / name
        file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(DataError, match=says) as error:
            FashionMNIST(str(tmp_path), test_mode=False)
        assert str(file) in str(error.value) and "get" in str(error.value) and "again" in str(error.value)


class TestRealFiles:
    @pytest.fixture(autouse=True)
    def _real(self):
        if not REAL.is_dir():
            pytest.skip(f"no files of Fashion-MNIST at {REAL}")

    def test_against_mmcls(self, tmp_path):
        """The reader of mmcls, which wants the files unpacked in one folder."""
        from mmcls.datasets import FashionMNIST as Original

        for name in NAMES:
            (tmp_path / name).write_bytes(gzip.decompress((REAL / f"{name}.gz").read_bytes()))
        theirs = Original(str(tmp_path), test_mode=True, download=False)
        ours = FashionMNIST(str(REAL), test_mode=True, download=False)
        assert len(ours) == len(theirs) == 10_000
        assert ours.metainfo["classes"] == theirs.metainfo["classes"]
        for index in range(0, 10_000, 37):
            wanted, found = theirs.get_data_info(index), ours.get_data_info(index)
            np.testing.assert_array_equal(wanted["img"], found["img"][..., 0])
            assert int(wanted["gt_label"]) == found["gt_label"]

    def test_held_out_parts_are_balanced(self):
        dataset = FashionMNIST(str(REAL), test_mode=False, span=(50_000, 54_000), download=False)
        counts = np.bincount(labels_of(dataset), minlength=10)
        assert counts.sum() == 4000 and counts.min() > 340
