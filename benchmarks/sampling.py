"""Candidate costs and conditional draws: ``python benchmarks/sampling.py``. Prints one line a figure."""

import logging
import time
from pathlib import Path

import numpy as np

from pss_razor.core import build_conditional_sampler
from pss_razor.engine.launch import load_config
from pss_razor.registry import MODELS

from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[1]
CANDIDATES, DRAWS = 100_000, 5_000


def main() -> None:
    """Print the figures of every FLOPs config."""
    logging.disable(logging.INFO)
    init_default_scope("mmrazor")
    generator = np.random.default_rng(0)
    for name in ("mbv2", "mbv1", "r50"):
        algorithm = MODELS.build(load_config(str(ROOT / f"configs/pss/pss_{name}_flops.py"), None, "none", None).model)
        start = time.perf_counter()
        cost = algorithm.costs["flops"]
        print(f"{name}_cost_graph_s: {time.perf_counter() - start:.2f} s")
        candidates = generator.integers(algorithm.space.shape, size=(CANDIDATES, len(algorithm.space)))
        rounds = []
        for _ in range(7):
            start = time.perf_counter()
            cost(candidates)
            rounds.append(time.perf_counter() - start)
        print(f"{name}_cost_us: {np.median(rounds) / CANDIDATES * 1e6:.3f} us a subnet ({CANDIDATES} at once)")
        start = time.perf_counter()
        sampler = build_conditional_sampler(cost, algorithm.constraints[0])
        print(f"{name}_sampler_setup_s: {time.perf_counter() - start:.2f} s ({type(sampler).__name__})")
        rates = []
        for target in sampler.reachable_targets:
            start = time.perf_counter()
            sampler.draw_many(target, DRAWS, generator)
            rates.append(DRAWS / (time.perf_counter() - start))
        print(f"{name}_draws_per_s: {np.median(rates):.0f} (slowest target {min(rates):.0f}, {len(rates)} targets)")


if __name__ == "__main__":
    main()
