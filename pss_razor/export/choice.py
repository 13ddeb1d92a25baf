"""Which subnets are exported: the best of each pool, measured where it was evaluated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pss_razor.core import ConfigError, Criterion, EvaluatedSubnet, Subnet, best_of_pools
from pss_razor.evaluation.one_pass import outside_test_loop
from pss_razor.evaluation.pool_evaluator import PoolEvaluator, list_resources

PoolKey = tuple[str, float]
Candidates = Mapping[PoolKey, Sequence[tuple[Subnet, float | None]]]


def choose_pools(texts: Sequence[str] | None, pools: Candidates) -> list[PoolKey]:
    """The pools that a command line asks for.

    Args:
        texts: Such as ``["flops=100,200", "latency_cpu=20000"]``; None takes all pools that have entries.
        pools: (metric, target) -> subnets, at least the best of each; see ``SubnetSampler.candidates``.

    Returns:
        Keys of pools with entries, in the order of ``pools``.

    Raises:
        ConfigError: A text is of another form, names a metric or target without a pool, or a pool without entries.
    """
    filled = [key for key, pool in pools.items() if len(pool)]
    if not filled:
        raise ConfigError("all pools of the checkpoint are empty; train longer, there is no subnet to export")
    if texts is None:
        return filled
    wanted: set[PoolKey] = set()
    for text in texts:
        metric, _, values = text.partition("=")
        targets = [target for name, target in pools if name == metric]
        if not targets:
            metrics = sorted({name for name, _ in pools})
            raise ConfigError(f"--targets {text}: there are no pools of {metric!r}; the config has {metrics}")
        for value in values.split(","):
            try:
                target = float(value)
            except ValueError:
                raise ConfigError(f"--targets {text}: {value!r} is no number; write {metric}={targets[0]}") from None
            if target not in targets:
                shown = ", ".join(map(str, targets))
                raise ConfigError(f"--targets {text}: {metric} has no pool for {value}; its targets are {shown}")
            if (metric, target) not in filled:
                raise ConfigError(
                    f"--targets {text}: the pool {metric} {value} is empty; train longer or choose another target"
                )
            wanted.add((metric, target))
    return [key for key in filled if key in wanted]


def choose_subnets(
    evaluator: PoolEvaluator, pools: Collection[PoolKey], results: Sequence[EvaluatedSubnet], criterion: Criterion
) -> list[EvaluatedSubnet]:
    """The best subnet of each pool.

    Args:
        evaluator: With the pools.
        pools: Keys of the pools, none of them empty.
        results: Evaluated subnets, see :func:`~pss_razor.evaluation.results.read_results`. Some pools may be missing.
        criterion: Decides which evaluated subnet is best.

    Returns:
        A subnet for each pool, in pool order: the best evaluated one, with its metrics and ``selected_by`` set to
        ``"held-out images"`` or, as in the paper, ``"test images"``; if none was evaluated, the one of the highest
        score, with ``"score"``.
    """
    measured = [own for own in results if math.isfinite(criterion.quality(own.deciding_metrics))]
    best = {own.pool: own for own in best_of_pools(measured, criterion)}
    chosen = []
    for own in evaluator.candidates(1):
        if own.pool not in pools:
            continue
        if own.pool in best:
            own = best[own.pool]
            selected_by = "test images" if own.selection_metrics is None else "held-out images"
        else:
            selected_by = "score"
        chosen.append(dataclasses.replace(own, selected_by=selected_by))
    # By this config's estimators: the results may be of a config with fewer.
    resources = list_resources(evaluator.algorithm, [own.subnet for own in chosen])
    return [dataclasses.replace(own, resources=costs) for own, costs in zip(chosen, resources, strict=True)]


def check_results(results: Sequence[EvaluatedSubnet], evaluator: PoolEvaluator, path: Path) -> None:
    """Check that results are of the checkpoint whose pools the evaluator has.

    Raises:
        ConfigError: A subnet of the results has another score in its pool, or is not in it.
    """
    scored = [own for own in results if own.pool is not None and own.score is not None]
    count = 1 + max((own.rank or 0 for own in scored), default=0)
    pools = {key: dict(entries) for key, entries in evaluator.sampler.candidates(count).items()}
    for own in scored:
        if own.pool is None or pools.get(own.pool, {}).get(own.subnet) != own.score:
            raise ConfigError(
                f"results file {path} is of another checkpoint: it has a subnet of score {own.score:.6g} in the "
                f"pool {own.metric} {own.target}, and the checkpoint has not; run pss-test on this one"
            )


def evaluate_pools(runner: Any, evaluator: PoolEvaluator, pools: Collection[PoolKey]) -> list[EvaluatedSubnet]:
    """Evaluate as the test loop would, but only some pools, besides the largest and the smallest subnet.

    Args:
        runner: Its test loop says how many subnets of a pool, and on which images.
        evaluator: Of this loop.
        pools: Keys of the pools.

    Returns:
        The subnets, with metrics.
    """
    loop = runner.test_loop
    wanted = {*pools, None}
    subnets = [own for own in evaluator.candidates(loop.top_k) if own.pool in wanted]
    with outside_test_loop(runner):
        return loop.evaluate_subnets(evaluator, subnets)
