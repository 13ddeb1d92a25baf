"""Crops that are decoded small against mmcv's loading and mmcls' RandomResizedCrop."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from pss_razor.core import DataError
from pss_razor.datasets import LoadRandomResizedCrop

from mmcls.datasets.transforms import RandomResizedCrop
from mmcv.transforms import LoadImageFromFile

KINDS = ["jpeg", "progressive", "png", "gray", "gray png", "cmyk", "alpha", *(f"turned {code}" for code in range(1, 9))]


def photograph(height, width):
    """Smooth shapes and a ramp in each direction, so that shifts and flips are seen."""
    small = np.random.default_rng(0).integers(0, 200, (height // 160, width // 160, 3), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    y, x = np.mgrid[:height, :width]
    return np.clip(image + 50 * (x / width)[..., None] + 25 * (y / height)[..., None], 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of each kind one of 640 × 480 pixels."""
    folder = tmp_path_factory.mktemp("files")
    image = Image.fromarray(photograph(480, 640))
    paths = {}
    for kind in KINDS:
        path = paths[kind] = str(folder / (kind + (".png" if kind in ("png", "gray png", "alpha") else ".jpg")))
        options = dict(quality=95)
        own = image
        if "gray" in kind:
            own = image.convert("L")
        elif kind == "cmyk":
            own = image.convert("CMYK")
        elif kind == "alpha":
            own = image.convert("RGBA")
        elif kind == "progressive":
            options["progressive"] = True
        elif kind.startswith("turned"):
            exif = Image.Exif()
            exif[0x0112] = int(kind[-1])
            options["exif"] = exif
        own.save(path, **options)
    return paths


def load(path, seed, scale, **settings):
    """What both make of a file, with the next random number."""
    found = []
    for transforms in (
        [LoadRandomResizedCrop(scale=scale, **settings)],
        [LoadImageFromFile(), RandomResizedCrop(scale=scale, **settings)],
    ):
        np.random.seed(seed)
        results = dict(img_path=path)
        for transform in transforms:
            results = transform(results)
        found.append((results, np.random.randint(2**31)))
    return found


def decoded_at(monkeypatch):
    """The flags that OpenCV is called with, as they come."""
    flags, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda content, flag: flags.append(flag) or decode(content, flag))
    return flags


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_gained_all_is_as_with_the_two(files, kind, monkeypatch):
    """480 pixels have no crop of twice 241."""
    flags = decoded_at(monkeypatch)
    for seed in range(5):
        (own, after), (two, after_two) = load(files[kind], seed, 241, crop_ratio_range=(0.25, 1.0))
        np.testing.assert_array_equal(own.pop("img"), two.pop("img"))
        assert own == two and after == after_two
    assert set(flags) == {cv2.IMREAD_COLOR}


@pytest.mark.parametrize("kind", KINDS)
def test_decoded_small_it_is_the_same_crop(files, kind, monkeypatch):
    """It is nearer to the two's than that is to itself flipped, or shifted by 1 of 48 pixels."""
    flags = decoded_at(monkeypatch)
    differences = []
    for seed in range(20):
        (own, after), (two, after_two) = load(files[kind], seed, 48, crop_ratio_range=(0.25, 1.0))
        assert after == after_two
        one, other = own.pop("img").astype(float), two.pop("img").astype(float)
        assert own == two
        differences.append(np.abs(one - other).mean())
        moved = [other[:, ::-1], other[::-1], np.roll(other, 1, 0), np.roll(other, 1, 1), other.transpose(1, 0, 2)]
        assert differences[-1] < 0.8 * min(np.abs(other - image).mean() for image in moved)
    small = {cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_8} & set(flags)
    assert not small if kind in ("png", "gray png", "alpha") else small
    assert max(differences) < 2


@pytest.mark.parametrize(
    ("scale", "flag"),
    [
        (481, cv2.IMREAD_COLOR),
        (241, cv2.IMREAD_COLOR),
        (240, cv2.IMREAD_REDUCED_COLOR_2),
        (121, cv2.IMREAD_REDUCED_COLOR_2),
        (120, cv2.IMREAD_REDUCED_COLOR_4),
        ((60, 61), cv2.IMREAD_REDUCED_COLOR_8),
        ((61, 60), cv2.IMREAD_REDUCED_COLOR_4),
        (8, cv2.IMREAD_REDUCED_COLOR_8),
    ],
)
def test_never_smaller_than_the_result(files, scale, flag, monkeypatch):
    """The whole image, 480 × 640, is the crop."""
    flags = decoded_at(monkeypatch)
    whole = LoadRandomResizedCrop(scale, crop_ratio_range=(1.0, 1.0), aspect_ratio_range=(4 / 3, 4 / 3))
    results = whole(dict(img_path=files["jpeg"]))
    assert flags == [flag] and results["ori_shape"] == (480, 640)
    assert results["img"].shape == (*((scale, scale) if isinstance(scale, int) else scale), 3)


def test_smoother_as_the_mean_of_what_it_stands_for(files):
    """At an eighth, each pixel is near the mean of its 8 × 8; bilinear resizing takes four of the 64."""
    whole = LoadRandomResizedCrop((60, 80), crop_ratio_range=(1.0, 1.0), aspect_ratio_range=(4 / 3, 4 / 3))
    found = whole(dict(img_path=files["jpeg"]))["img"]
    full = cv2.imread(files["jpeg"]).astype(float)
    means = full.reshape(60, 8, 80, 8, 3).mean((1, 3))
    assert np.abs(found - means).max() <= 2.5


def test_crops_stay_inside(files):
    """Also where a part is rounded: seen by an image whose border differs."""
    for seed in range(300):
        np.random.seed(seed)
        results = LoadRandomResizedCrop(16, crop_ratio_range=(0.01, 1.0))(dict(img_path=files["turned 6"]))
        assert results["img"].shape == (16, 16, 3) and results["ori_shape"] == (640, 480)


def test_damaged_headers(files, tmp_path):
    """As mmcv has it: the same image, also without the EXIF that nobody can read, or none."""
    whole = np.fromfile(files["turned 6"], np.uint8)
    path, generator, loaded = tmp_path / "a.jpg", np.random.default_rng(0), 0
    for seed in range(100):
        content = whole.copy()
        content[generator.integers(2, 60, 2)] = generator.integers(0, 256, 2)
        path.write_bytes(content.tobytes())
        if cv2.imread(str(path)) is None:
            with pytest.raises(DataError):
                LoadRandomResizedCrop(400)(dict(img_path=str(path)))
            continue
        (own, after), (two, after_two) = load(str(path), seed, 400)
        np.testing.assert_array_equal(own["img"], two["img"])
        assert after == after_two
        loaded += 1
    assert loaded >= 30


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"no image", b"\xff\xd8\xff\xe0 no image"])
def test_what_is_no_image(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg cannot be decoded"):
        LoadRandomResizedCrop(16)(dict(img_path=str(path)))


def test_workers_can_be_given_it(files):
    transform = pickle.loads(pickle.dumps(LoadRandomResizedCrop(32, crop_ratio_range=(0.5, 1.0))))
    assert transform(dict(img_path=files["jpeg"]))["img"].shape == (32, 32, 3)
    assert "scale=(32, 32)" in repr(transform)
