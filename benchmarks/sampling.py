"""Draws conditional on a target, set-up included: ``python benchmarks/sampling.py``.

Of the FLOPs configs, and of networks of torchvision that are converted, each with 20 targets from its smallest to its
largest subnet. ``--networks resnet50,densenet121`` takes some of them, ``--networks ""`` none. Seconds of draws and of
converted networks' set-up are the process's own on a CPU, so that others on the machine count less; set
``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
import torchvision
from common import Figure, build, main

from pss_razor.conversion import convert
from pss_razor.core import AdditiveCost, ConditionalSampler, Constraint, build_conditional_sampler

NETWORKS = "resnet18,resnet50,mobilenet_v3_large,regnet_y_400mf,densenet121,vit_b_16"
TARGETS = 20
RESOLUTIONS = (128, 160, 192, 224)
# Its position embedding is for one resolution.
ONE_RESOLUTION = ("vit_b_16",)


def measure(draws: int, rounds: int, networks: str) -> Iterator[Figure]:
    """Set-up and draws of every target, of the configs and of converted networks."""
    yield from measure_configs(draws)
    for name in filter(None, networks.split(",")):
        yield from measure_converted(name, draws, rounds)


def measure_configs(draws: int) -> Iterator[Figure]:
    """Set-up and draws of every target of the FLOPs configs."""
    generator = np.random.default_rng(0)
    for name in ("mbv1", "mbv2", "r50"):
        start = time.perf_counter()
        algorithm, _ = build(f"pss_{name}_flops")
        built = time.perf_counter() - start
        start = time.perf_counter()
        algorithm.__dict__.pop("costs", None)
        algorithm.__dict__.pop("cost_graph", None)
        sampler = build_conditional_sampler(algorithm.costs["flops"], algorithm.constraints[0])
        yield Figure(
            f"{name}_sampler_setup", time.perf_counter() - start, "s",
            f"{type(sampler).__name__}, cost graph included; building the model takes {built:.1f} s", at_most=5,
        )  # fmt: skip
        seconds = time_targets(sampler, draws, generator)
        yield Figure(
            f"{name}_draws", draws * len(seconds) / sum(seconds), "1/s",
            f"{draws} for each of {len(seconds)} targets, in all", at_least=20_000,
        )  # fmt: skip
        yield Figure(f"{name}_draws_slowest_target", draws / max(seconds), "1/s", f"{draws} at once", at_least=20_000)


def measure_converted(name: str, draws: int, rounds: int) -> Iterator[Figure]:
    """FLOPs and parameters of a network of torchvision, and its FLOPs at several resolutions."""
    for resolutions in (None,) if name in ONE_RESOLUTION else (None, RESOLUTIONS):
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None)
        costs = convert(model, torch.randn(2, 3, 224, 224), resolutions=resolutions).costs
        for metric in ("flops", "params") if resolutions is None else ("flops",):
            prefix = f"{name}_{metric}" + ("_resolutions" if resolutions else "")
            yield from measure_cost(prefix, metric, costs[metric], draws, rounds)


def measure_cost(prefix: str, metric: str, cost: AdditiveCost, draws: int, rounds: int) -> Iterator[Figure]:
    """Median set-up; draws of the target with the slowest median, and the median of all."""
    space, generator = cost.space, np.random.default_rng(0)
    constraint = Constraint.spread(metric, TARGETS, *cost(space.encode([space.smallest, space.largest])))
    setups = []
    for _ in range(rounds):
        sampler = None  # two at once would take twice the memory
        start = time.process_time()
        sampler = build_conditional_sampler(cost, constraint)
        setups.append(time.process_time() - start)
    yield Figure(
        f"{prefix}_setup", statistics.median(setups), "s",
        f"{type(sampler).__name__}, {len(space)} dimensions, {float(space.size):.1g} combinations", at_most=10,
    )  # fmt: skip
    reached = sampler.reachable_targets
    yield Figure(f"{prefix}_targets_reached", len(reached), "targets", f"of {TARGETS}", at_least=TARGETS)
    seconds = np.median([time_targets(sampler, draws, generator) for _ in range(rounds)], axis=0)
    yield Figure(
        f"{prefix}_draws_slowest_target", draws / max(seconds), "1/s",
        f"{draws} at once, median of {rounds}; of all targets {draws / np.median(seconds):.3g}", at_least=5_000,
    )  # fmt: skip


def time_targets(sampler: ConditionalSampler, draws: int, generator: np.random.Generator) -> list[float]:
    """Seconds that the draws of each reachable target take."""
    seconds = []
    for target in sampler.reachable_targets:
        start = time.process_time()
        sampler.draw_many(target, draws, generator)
        seconds.append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    main(measure, "draws conditional on a target", draws=5_000, rounds=3, networks=NETWORKS)
