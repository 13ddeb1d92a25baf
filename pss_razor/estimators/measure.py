"""Measuring latencies on the device at hand."""

from __future__ import annotations

import copy
import datetime
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pss_razor.core import Subnet
from pss_razor.deploy.trace import make_static
from pss_razor.estimators.layer_spec import BlockGeometry, CostGraph

# Blocks that are timed in turn: interleaved, so that a slow moment of the machine meets all of them alike.
_CHUNK = 48


@dataclass(frozen=True)
class Timing:
    """Repeated timings of one thing.

    Args:
        median_us: Median, microseconds.
        spread_us: Interquartile range, microseconds.
    """

    median_us: float
    spread_us: float


def time_interleaved(calls: Sequence[Callable[[], object]], rounds: int, device: str) -> list[Timing]:
    """Time several calls in turn, round after round, after one warm-up round.

    Args:
        calls: What to time; each is called ``rounds + 1`` times.
        rounds: Timed rounds.
        device: ``"cpu"`` or ``"cuda"``; on a GPU, a call ends when its kernels have.

    Returns:
        A timing for each call.
    """
    samples: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for call, own in zip(calls, samples, strict=True):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                own.append((time.perf_counter() - start) * 1e6)
    quartiles = [statistics.quantiles(own, n=4) if len(own) > 1 else [own[0]] * 3 for own in samples]
    return [Timing(median, upper - lower) for lower, median, upper in quartiles]


def find_geometries(graph: CostGraph) -> dict[BlockGeometry, tuple[str, Subnet]]:
    """Every block geometry of a search space, with the name of a block and a subnet that have it."""
    found: dict[BlockGeometry, tuple[str, Subnet]] = {}
    last = np.array(graph.space.shape) - 1
    for block in graph.blocks:
        names, geometries = block.geometries(graph.space)
        columns = [graph.space.position(name) for name in names]
        for position in np.ndindex(geometries.shape):
            if geometries[position] not in found:
                indices = last.copy()
                indices[columns] = position
                found[geometries[position]] = (block.name, graph.space.decode(indices))
    return found


def measure_blocks(
    supernet: nn.Module,
    active: Callable[[Subnet], AbstractContextManager[None]],
    blocks: dict[BlockGeometry, tuple[str, Subnet]],
    device: str,
    batch: int,
    rounds: int,
) -> Iterator[dict[BlockGeometry, Timing]]:
    """Time blocks as static networks, a chunk at a time.

    A single conv is timed with a BN and a ReLU after it, as it comes in a network.

    Args:
        supernet: The supernet.
        active: Context manager that activates a subnet.
        blocks: What to measure, from :func:`find_geometries`.
        device: ``"cpu"`` or ``"cuda"``.
        batch: Images a call; the timings are of a whole batch.
        rounds: Timed rounds.

    Yields:
        The timings of a chunk.
    """
    geometries = list(blocks)
    # In any order but that of the space: a slow minute shall not fall on all blocks of one resolution.
    random.Random(0).shuffle(geometries)
    for start in range(0, len(geometries), _CHUNK):
        chunk = geometries[start : start + _CHUNK]
        with torch.inference_mode():
            calls = [_static_call(supernet, active, *blocks[geometry], geometry, device, batch) for geometry in chunk]
            timings = time_interleaved(calls, rounds, device)
        yield dict(zip(chunk, timings, strict=True))


def _static_call(
    supernet: nn.Module,
    active: Callable[[Subnet], AbstractContextManager[None]],
    name: str,
    subnet: Subnet,
    geometry: BlockGeometry,
    device: str,
    batch: int,
) -> Callable[[], object]:
    with active(subnet):
        block: nn.Module = make_static(copy.deepcopy(supernet.get_submodule(name)))
    if isinstance(block, nn.Conv2d):
        block = nn.Sequential(block, nn.BatchNorm2d(geometry.cout), nn.ReLU(inplace=True))
    block.eval().to(device)
    linear = isinstance(block, nn.Linear)
    shape = (batch, geometry.cin) if linear else (batch, geometry.cin, geometry.in_size, geometry.in_size)
    images = torch.randn(shape, device=device)
    return lambda: block(images)


def describe_machine(device: str) -> dict[str, object]:
    """What a measurement depends on besides the network: device name, threads, dtype, versions, date."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        models = [line for line in _read_lines("/proc/cpuinfo") if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return {
        "device_name": name,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "memory_format": "contiguous",
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "date": datetime.date.today().isoformat(),
    }


def _read_lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
