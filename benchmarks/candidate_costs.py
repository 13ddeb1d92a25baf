"""FLOPs and table latency of many candidates, against MMRazor's estimator: ``python benchmarks/candidate_costs.py``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from common import Figure, build, main, time_in_turn

from pss_razor.estimators import LatencyTable
from pss_razor.estimators.latency.latency_estimator import latency_cost
from pss_razor.estimators.latency.measure import find_geometries

from mmrazor.models.task_modules.estimators import ResourceEstimator


def measure(candidates: int, rounds: int) -> Iterator[Figure]:
    """Time the costs of subnets in three shipped spaces. The latency table has random entries: only speed counts."""
    generator = np.random.default_rng(0)
    for name in ("mbv2", "mbv1", "r50"):
        algorithm, _ = build(f"pss_{name}_flops")
        table = LatencyTable({g: generator.uniform(10, 100) for g in find_geometries(algorithm.cost_graph)}, "cpu")
        latency = latency_cost(table, algorithm.cost_graph)
        indices = generator.integers(algorithm.space.shape, size=(candidates, len(algorithm.space)))
        medians = time_in_turn(
            {"flops": lambda a=algorithm, i=indices: a.costs["flops"](i), "latency": lambda c=latency, i=indices: c(i)},
            rounds,
        )
        for metric, seconds in medians.items():
            yield Figure(
                f"{name}_{metric}_of_a_subnet", seconds / candidates * 1e6, "us", f"{candidates} at once", at_most=1
            )
        if name == "mbv2":
            estimator = ResourceEstimator(input_shape=(1, 3, 224, 224))
            estimate = partial(estimator.estimate, algorithm.architecture)
            theirs = time_in_turn({"estimate": estimate}, rounds)["estimate"]
            yield Figure(
                "mmrazor_flops_over_flops", theirs / (medians["flops"] / candidates), "x",
                f"this project; MMRazor's ResourceEstimator {theirs * 1e3:.0f} ms a subnet", at_least=100_000,
            )  # fmt: skip


if __name__ == "__main__":
    main(measure, "costs of candidates", candidates=100_000, rounds=7)
