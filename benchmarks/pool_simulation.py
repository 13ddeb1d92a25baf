"""Pools and sampler alone over a whole training: ``python benchmarks/pool_simulation.py``.

MobileNetV2 with pools for FLOPs, parameters and a latency (of a made-up table), 250 epochs of 1,250 steps, random
scores. Time and memory of a step must not grow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, build, main

from pss_razor.core import PrioritizedSubnetSampler, build_constraints, exponential_decay
from pss_razor.estimators import LatencyTable, latency_cost
from pss_razor.estimators.latency.measure import find_geometries


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def build_sampler() -> PrioritizedSubnetSampler:
    """The sampler of a training with three constraints."""
    algorithm, _ = build("pss_mbv2_flops")
    generator = np.random.default_rng(0)
    graph = algorithm.cost_graph
    # A latency in proportion to the work, and a constant for each block.
    table = {g: 20 + g.in_size**2 * g.cin * g.cout * 1e-5 * generator.uniform(0.9, 1.1) for g in find_geometries(graph)}
    costs = {**algorithm.costs, "latency_cpu": latency_cost(LatencyTable(table, "cpu"), graph)}
    ends = algorithm.space.encode([algorithm.space.smallest, algorithm.space.largest])
    configs: list[dict[str, Any]] = [
        dict(metric="flops", first=70, last=300, step=10),
        dict(metric="params", num_targets=17),
        dict(metric="latency_cpu", num_targets=17),
    ]
    constraints = build_constraints(configs, costs, lambda metric: tuple(map(float, costs[metric](ends))))
    return PrioritizedSubnetSampler(costs, constraints, pool_size=50)


def measure(epochs: int, steps: int, intervals: int) -> Iterator[Figure]:
    """Time of a step and resident memory over ``intervals`` equal parts of the training."""
    start = time.perf_counter()
    sampler = build_sampler()
    yield Figure("setup", time.perf_counter() - start, "s", f"{len(sampler.pools)} pools, the model included")
    scores = np.random.default_rng(1)
    part = epochs // intervals
    micros, memory = [], []
    for interval in range(intervals):
        start = time.perf_counter()
        for epoch in range(interval * part, (interval + 1) * part):
            rate = exponential_decay(1.0, 0.01, epoch / epochs)
            for _ in range(steps):
                draw = sampler.draw(rate, rate)
                sampler.update(draw, -7 + 6 * epoch / epochs + scores.normal())
        micros.append((time.perf_counter() - start) / (part * steps) * 1e6)
        memory.append(resident_mib())
        yield Figure(
            f"step_in_epochs_{interval * part}_to_{(interval + 1) * part}",
            micros[-1],
            "us",
            f"{memory[-1]:.0f} MiB resident",
        )
    yield Figure("slowest_part_over_fastest", max(micros) / min(micros), "x", f"of {intervals} parts")
    growth = memory[-1] - memory[len(memory) // 2]
    yield Figure("memory_growth_in_second_half", growth, "MiB", f"{part * intervals * steps} steps in all", at_most=1)
    entries = sum(map(len, sampler.pools.values()))
    yield Figure("entries", entries, "subnets", f"{len(sampler.pools)} pools of at most 50")


if __name__ == "__main__":
    main(measure, "pools and sampler alone", epochs=250, steps=1250, intervals=10)
