"""Measuring the latencies of blocks on the device at hand."""

from __future__ import annotations

import copy
import datetime
import platform
import random
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pss_razor.core import Subnet
from pss_razor.core.cost_graph import BlockGeometry, CostGraph
from pss_razor.estimators.latency.inference_backends import Prepare
from pss_razor.estimators.latency.timing import MachineSpeed, Timing, time_interleaved
from pss_razor.static.trace import make_static

from mmcv.cnn import ConvModule

# Blocks that are timed in turn: interleaved, so that a slow moment of the machine meets all of them alike.
_CHUNK = 48


def find_geometries(
    graph: CostGraph, wanted: Container[BlockGeometry] | None = None
) -> dict[BlockGeometry, tuple[str, Subnet]]:
    """Every block geometry of a search space, or those wanted, with the name of a block and a subnet that have it."""
    found: dict[BlockGeometry, tuple[str, Subnet]] = {}
    last = np.array(graph.space.shape) - 1
    for block in graph.blocks:
        columns = [graph.space.position(name) for name in block.groups(graph.space)]
        for fixed, geometries in block.variants(graph.space):
            home = last.copy()
            home[[graph.space.position(name) for name in fixed]] = list(fixed.values())
            for position, geometry in np.ndenumerate(geometries):
                if geometry is None or geometry in found or (wanted is not None and geometry not in wanted):
                    continue
                indices = home.copy()
                indices[columns] = position
                found[geometry] = (block.name, graph.space.decode(indices))
    return found


def measure_blocks(
    supernet: nn.Module,
    active: Callable[[Subnet], AbstractContextManager[None]],
    blocks: dict[BlockGeometry, tuple[str, Subnet]],
    prepare: Prepare,
    device: str,
    batch: int,
    rounds: int,
    speed: MachineSpeed | None = None,
) -> Iterator[dict[BlockGeometry, Timing]]:
    """Time blocks as static networks, a chunk at a time.

    A single conv is timed with the BN and the activation after it, see :func:`static_block`.

    Args:
        supernet: The supernet.
        active: Context manager that activates a subnet.
        blocks: What to measure, from :func:`find_geometries`.
        prepare: The backend, from :func:`inference_backend`.
        device: ``"cpu"`` or ``"cuda"``.
        batch: Images a call; the timings are of a whole batch.
        rounds: Timed rounds.
        speed: Corrects the timings for changes of the machine's speed.

    Yields:
        The timings of a chunk.
    """
    geometries = list(blocks)
    # Shuffled, so that a slow minute does not fall on all blocks of one resolution.
    random.Random(0).shuffle(geometries)
    for start in range(0, len(geometries), _CHUNK):
        chunk = geometries[start : start + _CHUNK]
        with torch.inference_mode():
            calls = [
                prepare(*static_block(supernet, active, *blocks[geometry], geometry, device, batch))
                for geometry in chunk
            ]
            timings = time_interleaved(calls, rounds, device, speed)
        yield dict(zip(chunk, timings, strict=True))


def static_block(
    supernet: nn.Module,
    active: Callable[[Subnet], AbstractContextManager[None]],
    name: str,
    subnet: Subnet,
    geometry: BlockGeometry,
    device: str,
    batch: int,
) -> tuple[Any, ...]:
    """A block as a static network, and its inputs.

    A single conv comes with the BN and the activation that its ``ConvModule`` has; one that is in none, as in ResNet,
    with BN and ReLU. A converted network knows its parts itself.
    """
    own: Any = supernet
    if hasattr(own, "static_part"):
        part, inputs = own.static_part(name, subnet, batch)
        return part.eval().to(device), *(tensor.to(device) for tensor in inputs)
    parent = supernet.get_submodule(name.rpartition(".")[0])
    source = parent if isinstance(parent, ConvModule) else supernet.get_submodule(name)
    with active(subnet):
        block: nn.Module = make_static(copy.deepcopy(source))
    assert geometry.cin is not None and geometry.cout is not None, geometry
    if isinstance(block, nn.Conv2d):
        block = nn.Sequential(block, nn.BatchNorm2d(geometry.cout), nn.ReLU(inplace=True))
    block.eval().to(device)
    sides = [] if isinstance(block, nn.Linear) else [geometry.in_size] * 2
    return block, torch.randn(batch, geometry.cin, *sides, device=device)


def describe_machine(device: str, backend: str) -> dict[str, object]:
    """What a measurement depends on besides the network: device name, backend, threads, dtype, versions, date."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        models = [line for line in _read_lines("/proc/cpuinfo") if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return {
        "device_name": name,
        "backend": backend,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "memory_format": "contiguous",
        **{package: version(package) for package in sorted({"torch", backend})},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "date": datetime.date.today().isoformat(),
    }


def _read_lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
