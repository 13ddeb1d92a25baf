"""The shipped ImageNet pipelines against mmcls' own transforms: the same images, bit by bit, of all kinds of files."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import pss_razor.plugin  # noqa: F401
from pss_razor.config import list_configs
from pss_razor.registry import TRANSFORMS

from mmcv.image import adjust_lighting
from mmengine.config import Config

PLAIN = {"LookupColorJitter": "mmcls.ColorJitter", "PackPlanes": "mmcls.PackClsInputs"}


class LightingByFloats:
    """``ClippedLighting`` as its formula is: every pixel in floats."""

    def __init__(self, eigval, eigvec, alphastd):
        self.settings = np.array(eigval), np.array(eigvec), alphastd

    def __call__(self, results):
        noisy = adjust_lighting(results["img"], *self.settings, to_rgb=False)
        results["img"] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        return results


def plain(settings):
    settings = copy.deepcopy(settings)
    kind = settings.pop("type")
    if kind == "ClippedLighting":
        return LightingByFloats(**settings)
    return TRANSFORMS.build(dict(settings, type=PLAIN.get(kind, kind)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    small = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(cv2.resize(small, (500, 375), interpolation=cv2.INTER_CUBIC))
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "a.JPEG", quality=90)
    image.save(folder / "turned.jpg", exif=turned)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("L").save(folder / "gray.jpg")
    image.save(folder / "a.png")
    image.convert("RGBA").save(folder / "alpha.png")
    image.resize((40, 30)).save(folder / "tiny.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "loader"),
    [
        ("pss/pss_mbv2_flops", "train_dataloader"),
        ("pss/pss_mbv2_flops", "val_dataloader"),
        ("nas/cream/cream_supernet_8xb128_in1k", "train_dataloader"),
        ("nas/cream/cream_604_8xb128_in1k", "val_dataloader"),
    ],
)
def test_images_are_those_of_mmcls(files, name, loader):
    pipeline = Config.fromfile(list_configs()[name])[loader].dataset.pipeline
    own = [TRANSFORMS.build(copy.deepcopy(settings)) for settings in pipeline]
    assert {type(transform).__name__ for transform in own} & set(PLAIN)
    theirs = [plain(settings) for settings in pipeline]
    for number, path in enumerate(files * 4):
        found = []
        for transforms in (own, theirs):
            np.random.seed(number)
            results = dict(img_path=str(path), gt_label=number, sample_idx=number)
            for transform in transforms:
                results = transform(results)
            found.append((results, np.random.randint(2**31)))
        (one, after), (other, after_other) = found
        assert torch.equal(one["inputs"], other["inputs"]) and after == after_other
        assert one["inputs"].shape == (3, 224, 224) and one["inputs"].dtype == torch.uint8
        assert one["data_samples"].metainfo == other["data_samples"].metainfo
        assert torch.equal(one["data_samples"].gt_label.label, other["data_samples"].gt_label.label)
