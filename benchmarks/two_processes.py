"""Two processes (gloo) against one, at one total batch: ``python benchmarks/two_processes.py``.

Two processes of one thread each against one process of two threads, in turn; the second process waits while the first
runs alone.
"""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import Figure, build, build_optimizer, main, make_batch
from torch import distributed, multiprocessing
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from pss_razor.models import PSSDistributedDataParallel

CLASSES = 1000


def run_process(rank: int, folder: str, batch: int, side: int, rounds: int) -> None:
    """One of the two processes; the first writes down the medians, in seconds, and what was exchanged."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    options = {
        "model.architecture.resolutions": [side],
        "model.constraints": [dict(metric="flops", num_targets=2)],
    }
    halves, whole = make_batch(batch // 2, side, CLASSES), make_batch(batch, side, CLASSES)

    def prepare(wrap: bool, **settings: Any) -> tuple[Any, Any]:
        algorithm, config = build("pss_mbv2_flops", **options)
        model = PSSDistributedDataParallel(algorithm.train(), **settings) if wrap else algorithm.train()
        return model, build_optimizer(algorithm, config)

    def step(model: Any, optimizer: Any, images: dict[str, Any]) -> None:
        algorithm = getattr(model, "module", model)
        algorithm.sampled_subnet = algorithm.space.smallest
        model.train_step(dict(images), optimizer)

    single = prepare(wrap=False)
    pairs = {
        "two_processes": prepare(wrap=True),
        "two_processes_bucket_view": prepare(wrap=True, gradient_as_bucket_view=True),
    }
    counted = prepare(wrap=True)
    elements = 0

    def exchange(state, bucket):  # DDP refuses annotations that are strings
        nonlocal elements
        elements += bucket.buffer().numel()
        return allreduce_hook(None, bucket)

    counted[0].register_comm_hook(None, exchange)
    samples: dict[str, list[float]] = {"one_process": [], "half_alone": [], **{name: [] for name in pairs}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(rounds + 1):
            for name, (model, optimizer) in pairs.items():
                distributed.barrier()
                start = time.perf_counter()
                step(model, optimizer, halves)
                distributed.barrier()
                samples[name].append(time.perf_counter() - start)
            if rank == 0:
                for name, threads, images in (("one_process", 2, whole), ("half_alone", 1, halves)):
                    torch.set_num_threads(threads)
                    start = time.perf_counter()
                    step(*single, images)
                    samples[name].append(time.perf_counter() - start)
                torch.set_num_threads(1)
            distributed.barrier()
        step(*counted, halves)
    if rank == 0:
        parameters = sum(p.numel() for p in single[0].parameters())
        result: dict[str, float] = {name: statistics.median(values[1:]) for name, values in samples.items()}
        result["exchanges"] = elements / parameters
        result["stride_warnings"] = sum("bucket view strides" in str(warning.message) for warning in caught)
        Path(folder, "result.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


def measure(batch: int, side: int, rounds: int) -> Iterator[Figure]:
    """Start the processes and report."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(run_process, (folder, batch, side, rounds), nprocs=2)
        result = json.loads(Path(folder, "result.json").read_text())
    where = f"MobileNetV2, total batch {batch}, {side}x{side}"
    yield Figure(
        "gradient_exchanges_a_step", result["exchanges"], "", f"elements exchanged over parameters; {where}", at_most=1
    )
    for name in ("two_processes", "two_processes_bucket_view"):
        for baseline, what in (
            ("one_process", "one process of two threads"),
            ("half_alone", "one process of one thread with half the batch, alone on the machine"),
        ):
            yield Figure(
                f"{name}_over_{baseline}", result[name] / result[baseline], "x",
                f"{what} {result[baseline] * 1e3:.0f} ms; {where}",
            )  # fmt: skip
    yield Figure("bucket_stride_warnings", result["stride_warnings"], "", "of DDP, in the first process", at_most=0)


if __name__ == "__main__":
    main(measure, "two processes against one", batch=64, side=64, rounds=7)
