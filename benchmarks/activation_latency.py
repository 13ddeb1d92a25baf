"""Latency of MobileNetV1's blocks with ReLU6 against ReLU: ``python benchmarks/activation_latency.py``.

The same block three times, with ReLU, with ReLU6 and with ReLU once more: the last ratio says what is noise.
"""

from __future__ import annotations

import copy
import random
import statistics
from collections.abc import Iterator

import torch
from common import Figure, build, main
from torch import nn

from pss_razor.estimators.latency.inference_backends import inference_backend
from pss_razor.estimators.latency.measure import find_geometries, static_block
from pss_razor.estimators.latency.timing import time_interleaved


def with_relu(block: nn.Module) -> nn.Module:
    """A copy with a ReLU in place of every ReLU6."""
    block = copy.deepcopy(block)
    for parent in list(block.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(parent, name, nn.ReLU(child.inplace))
    return block


def measure(blocks: int, rounds: int, threads: int) -> Iterator[Figure]:
    """Time random blocks of the space in turn, and compare each with itself."""
    algorithm, _ = build("pss_mbv1_flops")
    places = find_geometries(algorithm.cost_graph)
    chosen = random.Random(0).sample([g for g in places if g.block_type != "Linear"], blocks)
    prepare = inference_backend("torch", "cpu", threads)
    calls = {"relu": [], "relu6": [], "relu_again": []}
    with torch.inference_mode():
        for geometry in chosen:
            block, images = static_block(
                algorithm.architecture, algorithm.mutator.active, *places[geometry], geometry, "cpu", 1
            )
            calls["relu"].append(prepare(with_relu(block), images))
            calls["relu6"].append(prepare(block, images))
            calls["relu_again"].append(prepare(with_relu(block), images))
        timings = time_interleaved([call for own in calls.values() for call in own], rounds, "cpu")
    medians = [timing.median_us for timing in timings]
    times_us = {name: medians[i * blocks : (i + 1) * blocks] for i, name in enumerate(calls)}
    for name in ("relu6", "relu_again"):
        ratios = [own / relu for own, relu in zip(times_us[name], times_us["relu"], strict=True)]
        lower, median, upper = statistics.quantiles(ratios, n=4)
        where = f"the same block with ReLU; {blocks} random blocks of MobileNetV1, threads {threads}"
        yield Figure(f"{name}_over_relu", median, "x", f"{where}; median of the ratios")
        yield Figure(
            f"{name}_over_relu_spread", upper - lower, "x",
            f"{where}; interquartile range of the ratios, which go from {min(ratios):.3f} to {max(ratios):.3f}",
        )  # fmt: skip


if __name__ == "__main__":
    main(measure, "ReLU6 against ReLU in MobileNetV1's blocks", blocks=48, rounds=31, threads=1)
