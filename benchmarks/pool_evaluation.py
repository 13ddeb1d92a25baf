"""Evaluation of all pools' best subnets: ``python benchmarks/pool_evaluation.py``.

Validation images are JPEG files on disk. One pass over them for all subnets, as the loops of this project do it,
against one pass, with BN calibration on a fresh data loader, for each subnet.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from common import Figure, build, main
from PIL import Image

from pss_razor.core import Subnet
from pss_razor.evaluation.pool_evaluator import PoolEvaluator

from mmengine.evaluator import Evaluator
from mmengine.registry import EVALUATOR
from mmengine.runner import Runner

CLASSES = 8


def write_images(folder: Path, count: int) -> None:
    """Synthetic JPEG files of ImageNet's usual size, 500 x 375, in one folder a class."""
    generator = np.random.default_rng(0)
    for index in range(count):
        # Smooth shapes and some noise: about as many bytes as a photograph.
        small = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + generator.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        path = folder / f"class{index % CLASSES}" / f"{index}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=90)


class Loads:
    """Counts the images that a data set decodes."""

    def __init__(self, dataset: Any) -> None:
        self.count = 0
        get = dataset.prepare_data

        def counted(index: int) -> Any:
            self.count += 1
            return get(index)

        dataset.prepare_data = counted


def measure(images: int, subnets: int, side: int, batch: int, threads: int, device: str) -> Iterator[Figure]:
    """Time, images decoded, and whether the accuracies are the same."""
    torch.set_num_threads(threads)
    algorithm, config = build(
        "pss_mbv1_flops",
        **{
            "model.architecture.resolutions": [side // 2, side * 3 // 4, side],
            "model.architecture.head.num_classes": CLASSES,
            "model.constraints": [dict(metric="flops", num_targets=2)],
        },
    )
    algorithm.to(device)
    generator = np.random.default_rng(0)
    space = algorithm.space
    chosen = [space.decode(row) for row in generator.integers(space.shape, size=(subnets, len(space)))]
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "val"):
            write_images(Path(folder) / split, images)

        def loader(split: str) -> tuple[Any, Loads]:
            settings = config[f"{split}_dataloader"]
            settings.dataset.update(data_root=folder, data_prefix=split)
            if split == "train":
                settings.dataset.pipeline[1].scale = side
            else:
                settings.dataset.pipeline[1].scale = side * 256 // 224
                settings.dataset.pipeline[2].crop_size = side
            settings.update(batch_size=batch, num_workers=0, pin_memory=False)
            settings.pop("worker_init_fn", None)
            built = Runner.build_dataloader(settings, seed=0)
            return built, Loads(built.dataset)

        runner = SimpleNamespace(call_hook=lambda *args, **kwargs: None)

        def evaluate(some: list[Subnet]) -> tuple[list[dict[str, float]], int, int]:
            (train, calibration_loads), (val, validation_loads) = loader("train"), loader("val")
            evaluator = EVALUATOR.build(dict(type=Evaluator, metrics=config.val_evaluator))
            evaluator.dataset_meta = val.dataset.metainfo
            pools = PoolEvaluator(algorithm, SimpleNamespace(pools={}), train, calibration_batches=2)
            results = pools.evaluate(some, val, evaluator, runner, "val")
            return results, validation_loads.count, calibration_loads.count

        evaluate(chosen[:1])  # warm-up
        for split in ("train", "val"):
            batches, loads = loader(split)
            start = time.perf_counter()
            for _ in batches:
                pass
            milliseconds = (time.perf_counter() - start) / loads.count * 1e3
            yield Figure(f"load_{split}_image", milliseconds, "ms", f"500x375 JPEG to {side}x{side}, one process")
        start = time.perf_counter()
        together, decoded, calibration = evaluate(chosen)
        one_pass = time.perf_counter() - start
        start = time.perf_counter()
        alone = [evaluate([subnet]) for subnet in chosen]
        passes = time.perf_counter() - start
    where = (
        f"{subnets} MobileNetV1 subnets, {images} images at {side}x{side}, batch {batch}, {threads} threads, {device}"
    )
    yield Figure("one_pass_for_all_subnets", one_pass, "s", f"one pass a subnet {passes:.1f} s; {where}")
    yield Figure("passes_over_one_pass", passes / one_pass, "x", "one pass for all subnets", at_least=1.5)
    yield Figure(
        "validation_images_decoded", decoded, "images",
        f"one pass a subnet {sum(run[1] for run in alone)}", at_most=images,
    )  # fmt: skip
    yield Figure(
        "calibration_images_decoded", calibration, "images",
        f"fresh loader a subnet {sum(run[2] for run in alone)}", at_most=2 * batch,
    )  # fmt: skip
    different = sum(a != run[0][0] for a, run in zip(together, alone, strict=True))
    accuracies = {result["accuracy/top1"] for result in together}
    yield Figure("subnets_of_other_accuracy", different, "subnets", f"{len(accuracies)} distinct accuracies", at_most=0)


if __name__ == "__main__":
    main(measure, "evaluation of pools", images=256, subnets=47, side=48, batch=128, threads=2, device="cpu")
