"""Training images a second and core: ``python benchmarks/image_loading.py``.

JPEG files are loaded with the augmentation of the shipped ImageNet config, and collated. Each contender in turn runs in
a process that is forked, as a worker of a data loader is. Its CPU time counts, after a first batch, so that other
processes disturb little. A contender whose library is missing is left out, and said to be.

The files are synthetic: noise with the spectrum of photographs, polygons, and noise of a sensor. Pillow-SIMD takes the
place of Pillow where it is installed; its version says which it is.
"""

from __future__ import annotations

import copy
import importlib
import io
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch
import torchvision
from common import ROOT, Figure, main
from torch.utils.data import Dataset
from torchvision.transforms import v2

from pss_razor.engine.launch import load_config
from pss_razor.registry import TRANSFORMS

from mmcls.structures import ClsDataSample
from mmcv.image import adjust_lighting
from mmengine import fileio
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope

# What version 0.2 had; ClippedLighting had its name already.
BEFORE = {"LookupColorJitter": "mmcls.ColorJitter", "PackPlanes": "mmcls.PackClsInputs"}
Transform = Callable[[dict[str, Any]], dict[str, Any]]


class LightingByFloats:
    """``ClippedLighting`` as it was in version 0.2: every pixel in floats."""

    def __init__(self, eigval: Sequence[float], eigvec: Sequence[Sequence[float]], alphastd: float) -> None:
        self.settings = np.array(eigval), np.array(eigvec), alphastd

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Images (H, W, 3) uint8."""
        noisy = adjust_lighting(results["img"], *self.settings, to_rgb=False)
        results["img"] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        return results


class LoadBy:
    """Loads a file by a function from bytes to an image (H, W, 3) in the order B, G, R."""

    def __init__(self, decode: Callable[[bytes], np.ndarray]) -> None:
        self.decode = decode

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """As mmcv's ``LoadImageFromFile``."""
        image = self.decode(fileio.get(results["img_path"]))
        return results | dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])


class ByTorchvision:
    """The same augmentation by torchvision alone: decoder, and transforms of version 2 on tensors."""

    def __init__(self, side: int, area: tuple[float, float], lighting: dict[str, Any]) -> None:
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(side, scale=area, antialias=False),
                v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
            ]
        )
        self.flip = v2.RandomHorizontalFlip()
        self.vectors = torch.tensor(lighting["eigvec"]).flip(0) * torch.tensor(lighting["eigval"])  # R, G, B
        self.strength = lighting["alphastd"]

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """A packed image."""
        image = self.augment(torchvision.io.decode_jpeg(torchvision.io.read_file(results["img_path"])))
        noise = (self.vectors * torch.randn(3) * self.strength).sum(1).round().to(torch.int16)
        image = (image.to(torch.int16) + noise[:, None, None]).clamp_(0, 255).to(torch.uint8)
        sample = ClsDataSample(metainfo=dict(img_path=results["img_path"])).set_gt_label(results["gt_label"])
        return dict(inputs=self.flip(image), data_samples=sample)


class Files(Dataset):
    """Images of files, over and over."""

    def __init__(self, paths: Sequence[str], times: int, transforms: Sequence[Transform]) -> None:
        self.paths, self.times, self.transforms = paths, times, transforms

    def __len__(self) -> int:
        """Images of all passes."""
        return len(self.paths) * self.times

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A packed image."""
        results: dict[str, Any] = dict(img_path=self.paths[index % len(self.paths)], gt_label=0, sample_idx=index)
        for transform in self.transforms:
            results = transform(results)
        return results


def make_photograph(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose amplitude falls with the frequency, convex shapes of other contrast, noise: (H, W, 3) uint8."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    spectra = (np.fft.rfft2(generator.normal(size=(height, width))) / frequency for _ in range(4))
    shared, *own = (np.fft.irfft2(spectrum, s=(height, width)) for spectrum in spectra)
    image = (
        generator.uniform(80, 170, 3) + 38 * (shared / shared.std())[..., None] + 9 * np.stack(own, -1) / own[0].std()
    )
    for _ in range(generator.integers(4, 12)):
        corners = generator.integers(0, (width, height), (5, 2)).astype(np.int32)
        shape = np.zeros((height, width), np.uint8)
        cv2.fillPoly(shape, [cv2.convexHull(corners)], 255, lineType=cv2.LINE_AA)
        share = generator.uniform(0.3, 1) * (shape / 255)[..., None]
        other = generator.uniform(0, 255, 3) + generator.uniform(0.2, 0.8) * (image - image.mean((0, 1)))
        image = (1 - share) * image + share * other
    return np.clip(image + generator.normal(0, 2.5, image.shape), 0, 255).astype(np.uint8)


def write_files(folder: Path, count: int, height: int, width: int) -> list[str]:
    """JPEG files of quality 90."""
    generator = np.random.default_rng(0)
    paths = [str(folder / f"{number}.JPEG") for number in range(count)]
    for path in paths:
        cv2.imwrite(path, make_photograph(generator, height, width), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def build_contenders(side: int) -> dict[str, list[Transform]]:
    """Transforms of each; ``before`` is what the others are compared with, ``shipped`` the config's pipeline."""
    pipeline = load_config(
        str(ROOT / "configs/pss/pss_mbv2_flops.py"), None, "none", None
    ).train_dataloader.dataset.pipeline
    crop = next(settings for settings in pipeline if settings["type"].endswith("RandomResizedCrop"))
    lighting = next(settings for settings in pipeline if settings["type"] == "ClippedLighting")
    crop["scale"] = side

    def before(settings: dict[str, Any]) -> Transform:
        if settings is lighting:
            return LightingByFloats(**{name: value for name, value in settings.items() if name != "type"})
        return TRANSFORMS.build(dict(settings, type=BEFORE.get(settings["type"], settings["type"])))

    shipped = [TRANSFORMS.build(copy.deepcopy(settings)) for settings in pipeline]
    _, _, *rest = shipped
    area = tuple(crop["crop_ratio_range"])
    contenders: dict[str, list[Transform]] = {
        "before": [before(settings) for settings in pipeline],
        "shipped": shipped,
        "decoded_small": [
            TRANSFORMS.build(dict(type="LoadRandomResizedCrop", scale=side, crop_ratio_range=area)),
            *rest,
        ],
        "torchvision": [ByTorchvision(side, area, lighting)],
    }
    for name, decode in decoders().items():
        contenders[f"{name}_decoder"] = [LoadBy(decode), *shipped[1:]]
    return contenders


def decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Those that are installed, besides OpenCV's."""

    def pillow(content: bytes) -> np.ndarray:
        return np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB"))[..., ::-1]

    def torchvisions(content: bytes) -> np.ndarray:
        image = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        return image.permute(1, 2, 0).numpy()[..., ::-1]

    found = {f"pillow_{PIL.__version__}": pillow, "torchvision": torchvisions}
    if (simplejpeg := importable("simplejpeg")) is not None:
        found["simplejpeg"] = lambda content: simplejpeg.decode_jpeg(content, "BGR")
    if (turbojpeg := importable("turbojpeg")) is not None:
        found["turbojpeg"] = turbojpeg.TurboJPEG().decode
    return found


def importable(name: str) -> Any:
    """The module, or None, which is said."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed, and left out")
        return None


def seconds_an_image(dataset: Dataset, batch: int) -> float:
    """CPU time of a worker's batches but the first, without sending them."""

    def load(sender: Connection) -> None:
        def batches(start: int, end: int) -> None:
            for first in range(start, end, batch):
                default_collate([dataset[index] for index in range(first, min(first + batch, end))])

        batches(0, batch)
        start = time.process_time()
        batches(batch, len(dataset))
        sender.send((time.process_time() - start) / (len(dataset) - batch))

    forked = multiprocessing.get_context("fork")
    receiver, sender = forked.Pipe(duplex=False)
    worker = forked.Process(target=load, args=(sender,))
    worker.start()
    sender.close()  # so that receiving ends if the worker does
    seconds = receiver.recv()
    worker.join()
    return seconds


def milliseconds_of_steps(paths: Sequence[str], transforms: Sequence[Transform]) -> dict[str, float]:
    """Median CPU time of each transform, in this process."""
    samples: dict[str, list[float]] = {type(transform).__name__: [] for transform in transforms}
    for path in paths:
        results: dict[str, Any] = dict(img_path=path, gt_label=0)
        for transform in transforms:
            start = time.process_time()
            results = transform(results)
            samples[type(transform).__name__].append((time.process_time() - start) * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


def measure(images: int, times: int, height: int, width: int, side: int, batch: int, rounds: int) -> Iterator[Figure]:
    """Images a second and core of each contender; and of two the time of each step."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    init_default_scope("mmrazor")
    contenders = build_contenders(side)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), images, height, width)
        size = sum(Path(path).stat().st_size for path in paths) / images / 1e3
        where = f"{width}x{height} JPEG of {size:.0f} KB to {side}x{side}"
        for name in ("before", "shipped"):
            for step, milliseconds in milliseconds_of_steps(paths * 2, contenders[name]).items():
                yield Figure(f"{name}_{step}", milliseconds, "ms", where)
        samples: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, transforms in contenders.items():
                samples[name].append(seconds_an_image(Files(paths, times, transforms), batch))
    for name, values in samples.items():
        ratios = sorted(before / own for before, own in zip(samples["before"], values, strict=True))
        yield Figure(
            f"{name}_images_a_second_and_core", 1 / statistics.median(values), "images/s",
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) times as many as before; {where}",
        )  # fmt: skip
        if name == "shipped":
            yield Figure("shipped_over_before", statistics.median(ratios), "x", where, at_least=1.5)


if __name__ == "__main__":
    main(measure, "loading of training images", images=64, times=8, height=375, width=500, side=224, batch=64, rounds=5)
