"""Draws conditional on a target, set-up included: ``python benchmarks/sampling.py``."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from common import Figure, build, main

from pss_razor.core import build_conditional_sampler


def measure(draws: int) -> Iterator[Figure]:
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
        seconds = []
        for target in sampler.reachable_targets:
            start = time.perf_counter()
            sampler.draw_many(target, draws, generator)
            seconds.append(time.perf_counter() - start)
        yield Figure(
            f"{name}_draws", draws * len(seconds) / sum(seconds), "1/s",
            f"{draws} for each of {len(seconds)} targets, in all", at_least=20_000,
        )  # fmt: skip
        yield Figure(f"{name}_draws_slowest_target", draws / max(seconds), "1/s", f"{draws} at once", at_least=20_000)


if __name__ == "__main__":
    main(measure, "draws conditional on a target", draws=5_000)
