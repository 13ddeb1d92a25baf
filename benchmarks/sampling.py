"""Draws conditional on a target, set-up included: ``python benchmarks/sampling.py``.

Of the FLOPs configs, of the three metrics of MobileNetV1-M together, and of networks of torchvision that are converted,
each with 20 targets from its smallest to its largest subnet. ``--networks resnet50,densenet121`` takes some of them,
``--networks ""`` none. A draw of one is what a training step makes. Seconds are the process's own on a CPU, so that
others on the machine count less; set ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torchvision
from common import ROOT, Figure, build, main

from pss_razor.conversion import convert
from pss_razor.core import (
    AdditiveCost,
    ConditionalSampler,
    Constraint,
    PrioritizedSubnetSampler,
    build_conditional_sampler,
)
from pss_razor.models import PSS

NETWORKS = "resnet18,resnet50,mobilenet_v3_large,regnet_y_400mf,densenet121,vit_b_16"
TARGETS = 20
# Draws of one that are timed for each target and round.
SINGLE_DRAWS = 20
RESOLUTIONS = (128, 160, 192, 224)
# Its position embedding is for one resolution.
ONE_RESOLUTION = ("vit_b_16",)


def measure(draws: int, rounds: int, networks: str) -> Iterator[Figure]:
    """Set-up and draws of every target, of the configs and of converted networks."""
    yield from measure_configs(draws, rounds)
    yield from measure_together(rounds)
    for name in filter(None, networks.split(",")):
        yield from measure_converted(name, draws, rounds)


def measure_configs(draws: int, rounds: int) -> Iterator[Figure]:
    """Set-up and draws of every target of the FLOPs configs."""
    for name in ("mbv1", "mbv2", "r50"):
        algorithm, _ = build(f"pss_{name}_flops")
        for cached in ("costs", "cost_graph"):
            algorithm.__dict__.pop(cached, None)
        seconds, sampler = time_cpu(build_sampler, algorithm)
        yield Figure(f"{name}_sampler_setup", seconds, "s", f"{type(sampler).__name__}, cost graph included", at_most=5)
        many, one = time_targets(sampler, draws, rounds)
        yield Figure(
            f"{name}_draws", draws * len(many) / sum(many), "1/s",
            f"{draws} for each of {len(many)} targets, medians of {rounds}, in all", at_least=50_000,
        )  # fmt: skip
        yield Figure(f"{name}_draws_slowest_target", draws / max(many), "1/s", f"{draws} at once", at_least=50_000)
        yield Figure(
            f"{name}_draw_of_one", max(one) * 1e3, "ms", f"slowest target; median {np.median(one) * 1e3:.2g}", at_most=2
        )


def build_sampler(algorithm: PSS) -> ConditionalSampler:
    """The sampler of an algorithm's first constraint, from the supernet on."""
    constraint = algorithm.constraints[0]
    return build_conditional_sampler(algorithm.costs[constraint.metric], constraint)


def measure_together(rounds: int) -> Iterator[Figure]:
    """The samplers of all metrics of MobileNetV1-M, of which no GPU table is shipped: the CPU's takes its place."""
    table = str(ROOT / "configs" / "_base_" / "latency_tables" / "mobilenet_v1_cpu.json")
    gpu = {"model.estimators.latency_gpu.table": table, "model.estimators.latency_gpu.device": "cpu"}
    algorithm, _ = build("pss_mbv1_multi", **gpu)
    costs, constraints = algorithm.costs, algorithm.constraints

    def set_up() -> PrioritizedSubnetSampler:
        return PrioritizedSubnetSampler(costs, constraints)

    seconds, (*_, sampler) = zip(*(time_cpu(set_up) for _ in range(rounds)), strict=True)
    pools = len(sampler.pools)
    yield Figure(
        "mbv1_multi_samplers_setup", statistics.median(seconds), "s",
        f"{pools} pools of {len(constraints)} metrics together, costs given, median of {rounds}", at_most=0.5,
    )  # fmt: skip
    of_one = [time_cpu(sampler.draw)[0] for _ in range(20 * pools)]
    yield Figure(
        "mbv1_multi_draw_of_one", statistics.median(of_one) * 1e3, "ms",
        f"of a training step that explores, median of {len(of_one)}; mean {statistics.mean(of_one) * 1e3:.2g}",
        at_most=1,
    )  # fmt: skip
    tracemalloc.start()
    kept = set_up()
    memory, peak = (size / 2**20 for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    yield Figure(
        "mbv1_multi_samplers_memory", memory, "MiB",
        f"kept of all {len(kept.conditional_samplers)}; up to {peak:.3g} meanwhile", at_most=64,
    )  # fmt: skip


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
    space = cost.space
    constraint = Constraint.spread(metric, TARGETS, *cost(space.encode([space.smallest, space.largest])))
    setups = []
    for _ in range(rounds):
        sampler = None  # two at once would take twice the memory
        seconds, sampler = time_cpu(build_conditional_sampler, cost, constraint)
        setups.append(seconds)
    yield Figure(
        f"{prefix}_setup", statistics.median(setups), "s",
        f"{type(sampler).__name__}, {len(space)} dimensions, {float(space.size):.1g} combinations", at_most=10,
    )  # fmt: skip
    reached = sampler.reachable_targets
    yield Figure(f"{prefix}_targets_reached", len(reached), "targets", f"of {TARGETS}", at_least=TARGETS)
    many, one = time_targets(sampler, draws, rounds)
    yield Figure(
        f"{prefix}_draws_slowest_target", draws / max(many), "1/s",
        f"{draws} at once, median of {rounds}; of all targets {draws / np.median(many):.3g}", at_least=5_000,
    )  # fmt: skip
    yield Figure(
        f"{prefix}_draw_of_one", max(one) * 1e3, "ms", f"slowest target; of all targets {np.median(one) * 1e3:.2g}"
    )


def time_targets(sampler: ConditionalSampler, draws: int, rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of each reachable target, medians of rounds: of so many draws at once, and of a draw of one."""
    generator = np.random.default_rng(0)

    def time_draws(target: float, count: int, times: int) -> float:
        return sum(time_cpu(sampler.draw_many, target, count, generator)[0] for _ in range(times)) / times

    seconds = [
        [(time_draws(target, draws, 1), time_draws(target, 1, SINGLE_DRAWS)) for target in sampler.reachable_targets]
        for _ in range(rounds)
    ]
    many, one = np.median(seconds, axis=0).T.tolist()
    return many, one


def time_cpu(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = function(*args)
    return time.process_time() - start, result


if __name__ == "__main__":
    main(measure, "draws conditional on a target", draws=5_000, rounds=3, networks=NETWORKS)
