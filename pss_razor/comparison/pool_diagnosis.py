"""Whether pools find good subnets: their members measured, beside fresh draws for the same targets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pss_razor.comparison.seed_statistics import find_dominating
from pss_razor.core import ConfigError, Criterion, PoolEntry, PrioritizedPool, PrioritizedSubnetSampler, Subnet
from pss_razor.evaluation.pool_evaluator import PoolEvaluator, list_resources
from pss_razor.visualization import ScatterPanel, draw_diagnosis

LOSS = "loss/cross_entropy"
_SEED = 0
# Column of the tables -> its title. All are numbers of a pool's ``figures``.
_OF_POOLS = {
    "entries": "entries",
    "visits": "visits",
    "insertions": "came in",
    "drops": "dropped",
    "visits_a_member": "visits a member",
    "steps_in_pool": "steps in the pool",
    "steps_since_visit": "steps since the last visit",
}
_OF_CHOICES = {
    "pick": "best by score",
    "members_mean": "members: mean",
    "members_best": "best",
    "fresh_mean": "fresh draws: mean",
    "fresh_best": "best of as many",
    "pick_minus_members": "best by score - members' mean",
    "pick_minus_fresh": "best by score - fresh mean",
}
_OF_TAUS = {
    "tau_score_accuracy": "score, accuracy",
    "tau_score_loss": "score, - cross-entropy",
    "tau_visits_accuracy": "visits, accuracy",
    "tau_last_step_accuracy": "step of the last visit, accuracy",
}


@dataclass(frozen=True)
class Draw:
    """A subnet that was drawn for a target, and measured."""

    resource: float
    accuracy: float
    cross_entropy: float


@dataclass(frozen=True)
class Member:
    """A member of a pool that was measured; steps are None in checkpoints of version 0.2."""

    score: float
    visits: int
    first_step: int | None
    last_step: int | None
    resource: float
    accuracy: float
    cross_entropy: float


@dataclass(frozen=True)
class PoolDiagnosis:
    """What is found of a pool.

    Args:
        metric: Of the pool.
        target: Of the pool, in the metric's unit.
        members: Best score first.
        fresh: Draws conditional on the target.
        figures: Name -> figure; None where it cannot be computed.
        dominated: What :func:`find_dominating` says of the best by score.
    """

    metric: str
    target: float
    members: list[Member]
    fresh: list[Draw]
    figures: dict[str, float | None]
    dominated: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Measured:
    resources: Mapping[str, float]
    accuracy: float
    cross_entropy: float


def choose_members(pool: PrioritizedPool, count: int) -> list[PoolEntry]:
    """Up to ``count`` entries, best score first: the best, the lowest, and evenly spread ranks between them.

    The best alone would have scores of too narrow a range to correlate with anything.
    """
    ranked = pool.best(len(pool))
    if len(ranked) <= count:
        return ranked
    return [ranked[round(rank)] for rank in np.linspace(0, len(ranked) - 1, count)]


def diagnose_pools(
    evaluator: PoolEvaluator,
    measure: Callable[[Sequence[Subnet]], Sequence[Mapping[str, Any]]],
    criterion: Criterion,
    images: int,
    members: int = 20,
    fresh: int = 20,
) -> dict[str, Any]:
    """Measure members of all pools, as many draws conditional on the same targets, the largest and the smallest subnet.

    Args:
        evaluator: With the pools.
        measure: Distinct subnets -> metrics of each, among them that of the criterion and ``loss/cross_entropy``.
        criterion: What decides; must be resolved.
        images: How many images ``measure`` takes.
        members: Most members of each pool; see :func:`choose_members`.
        fresh: Most distinct draws for each target.

    Returns:
        JSON-able:

        - ``accuracy`` (name of the metric), ``images``, ``step`` (draws of the training), ``units``; ``largest`` and
          ``smallest`` with ``resources``, ``accuracy`` and ``cross_entropy``.
        - ``pools``: name -> the fields of a :class:`PoolDiagnosis`. Cheaper ones that may dominate are the best by
          score of lower targets and the smallest.
        - ``means``: name of a figure -> ``mean`` and ``standard_error`` over the pools that have it, and ``pools``,
          their number.

        Figures are None where they cannot be computed; checkpoints of version 0.2 know of no steps and no turnover.
        Accuracies of the best of several are those on the images that they were chosen by, and the best of the fresh
        ones is that of as many as there are members. ``tau`` is Kendall's rank correlation over the members of a pool.

    Raises:
        ConfigError: There are no pools, or a number cannot work.
    """
    sampler = evaluator.sampler
    if not isinstance(sampler, PrioritizedSubnetSampler):
        raise ConfigError(
            f"the checkpoint has no pools but the state of a {type(sampler).__name__}; give one that was trained with "
            "PrioritizedPoolSamplerHook"
        )
    if members < 2 or fresh < 1:
        raise ConfigError(f"members = {members} must be at least 2, fresh = {fresh} at least 1")
    space, generator = sampler.space, np.random.default_rng(_SEED)
    chosen = {key: choose_members(pool, members) for key, pool in sampler.pools.items()}
    drawn = {
        (metric, target): [
            space.decode(row) for row in sampler.conditional_samplers[metric].draw_distinct(target, fresh, generator)
        ]
        for metric, target in sampler.pools
    }
    subnets = [space.largest, space.smallest]
    subnets += [entry.subnet for entries in chosen.values() for entry in entries]
    subnets += [subnet for own in drawn.values() for subnet in own]
    subnets = list(dict.fromkeys(subnets))
    found = {
        subnet: _Measured(resources, metrics[criterion.name], metrics[LOSS])
        for subnet, resources, metrics in zip(
            subnets, list_resources(evaluator.algorithm, subnets), measure(subnets), strict=True
        )
    }

    def in_metric(subnet: Subnet, metric: str) -> dict[str, float]:
        own = found[subnet]
        return {"resource": own.resources[metric], "accuracy": own.accuracy, "cross_entropy": own.cross_entropy}

    pools = {}
    for (metric, target), entries in chosen.items():
        measured = [
            Member(e.score, e.visits, e.first_step, e.last_step, **in_metric(e.subnet, metric)) for e in entries
        ]
        draws = [Draw(**in_metric(subnet, metric)) for subnet in drawn[metric, target]]
        figures = _figures(sampler.pools[metric, target], measured, draws, criterion, sampler.step)
        pools[f"{metric}_{target}"] = PoolDiagnosis(metric, target, measured, draws, figures)
    smallest = found[space.smallest]
    pools = {
        name: replace(own, dominated=_dominated(own, pools, smallest.accuracy, criterion, images))
        for name, own in pools.items()
    }
    return {
        "format": 1,
        "accuracy": criterion.name,
        "rule": criterion.rule,
        "images": images,
        "step": sampler.step,
        "units": {metric: evaluator.algorithm.estimators[metric].unit for metric in sampler.conditional_samplers},
        "largest": asdict(found[space.largest]),
        "smallest": asdict(smallest),
        "pools": {name: asdict(own) for name, own in pools.items()},
        "means": _means([own.figures for own in pools.values()]),
    }


def kendall_tau(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """Kendall's tau-b of the pairs whose values are both known; None where it is not defined."""
    from scipy.stats import kendalltau  # slow to import, and only needed here

    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return None
    tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
    return tau if math.isfinite(tau) else None


def format_diagnosis(diagnosis: Mapping[str, Any]) -> str:
    """A diagnosis as Markdown: the pools, what choosing by score gains, and rank correlations."""
    accuracy, images = diagnosis["accuracy"].removeprefix("accuracy/"), diagnosis["images"]
    largest, smallest = (diagnosis[name]["accuracy"] for name in ("largest", "smallest"))
    dominated = {name: own["dominated"] for name, own in diagnosis["pools"].items() if own["dominated"]}
    lines = [f"{accuracy} on {images} images: largest subnet {largest:.2f}, smallest {smallest:.2f}.", ""]
    if diagnosis["accuracy"].startswith("accuracy/"):
        error = 100 * math.sqrt(smallest / 100 * (1 - smallest / 100) / images)
        lines[0] += f" The standard error of one such accuracy is {error:.2f}."
    lines += [f"Pools after {diagnosis['step']} draws (means over members)", ""]
    lines += [*_table(diagnosis, _OF_POOLS, ".0f"), ""]
    lines += ["What the choice by score gains; the best of several is the best on the same images, so too good", ""]
    lines += [*_table(diagnosis, _OF_CHOICES, ".2f"), ""]
    if dominated:
        words = [
            f"{name} by {own['by']} ({own['difference']:+.2f} ± {own['standard_error']:.2f})"
            for name, own in dominated.items()
        ]
        lines += [f"Best by score is dominated by a cheaper subnet: {', '.join(words)}.", ""]
    else:
        lines += ["No pool's best by score is dominated by a cheaper one.", ""]
    lines += ["Kendall's tau over the members of a pool", "", *_table(diagnosis, _OF_TAUS, ".2f")]
    return "\n".join(lines) + "\n"


def draw_pools(diagnosis: Mapping[str, Any]) -> bytes:
    """Accuracy against score, visits and age, as a PNG file."""
    panels = []
    for own in diagnosis["pools"].values():
        members, tau = own["members"], own["figures"]["tau_score_accuracy"]
        title = f"{own['metric']} {own['target']}, tau {'-' if tau is None else f'{tau:.2f}'}"
        ages = [None if m["last_step"] is None else diagnosis["step"] - m["last_step"] for m in members]
        scores, accuracies, visits = ([m[key] for m in members] for key in ("score", "accuracy", "visits"))
        panels.append(ScatterPanel(title, accuracies, scores, own["figures"]["fresh_mean"], visits, ages))
    return draw_diagnosis(panels, diagnosis["accuracy"], "mean of fresh draws for the same target")


def _figures(
    pool: PrioritizedPool,
    members: Sequence[Member],
    fresh: Sequence[Draw],
    criterion: Criterion,
    step: int,
) -> dict[str, float | None]:
    best = max if criterion.rule == "greater" else min
    sign = 1 if criterion.rule == "greater" else -1

    def column(key: str, factor: float = 1) -> list[float | None]:
        values = [getattr(member, key) for member in members]
        return [None if value is None else factor * value for value in values]

    accuracies = [member.accuracy for member in members]
    fresh_accuracies = [draw.accuracy for draw in fresh]
    pick = accuracies[0] if accuracies else None
    members_mean, fresh_mean = _mean(accuracies), _mean(fresh_accuracies)
    ages = {key: _mean([step - entry for entry in column(key) if entry is not None]) for key in _STEPS}
    qualities = column("accuracy", sign)
    return {
        "entries": len(pool),
        **{key: getattr(pool.turnover, key) if step else None for key in ("visits", "insertions", "drops")},
        "visits_a_member": _mean([member.visits for member in members]),
        "steps_in_pool": ages["first_step"],
        "steps_since_visit": ages["last_step"],
        "pick": pick,
        "members_mean": members_mean,
        "members_best": best(accuracies, default=None),
        "fresh_mean": fresh_mean,
        "fresh_best": best(fresh_accuracies[: len(members) or None], default=None),
        "pick_minus_members": None if pick is None or members_mean is None else pick - members_mean,
        "pick_minus_fresh": None if pick is None or fresh_mean is None else pick - fresh_mean,
        "tau_score_accuracy": kendall_tau(column("score"), qualities),
        "tau_score_loss": kendall_tau(column("score"), column("cross_entropy", -1)),
        "tau_visits_accuracy": kendall_tau(column("visits"), qualities),
        "tau_last_step_accuracy": kendall_tau(column("last_step"), qualities),
    }


_STEPS = ("first_step", "last_step")


def _dominated(
    own: PoolDiagnosis, pools: Mapping[str, PoolDiagnosis], smallest: float, criterion: Criterion, images: int
) -> dict[str, Any] | None:
    """What dominates a pool's best by score: the smallest subnet, or the best by score of a lower target."""
    if not own.members:
        return None
    cheaper = {"smallest": {_SEED: smallest}}
    for name, other in pools.items():
        if other.members and other.metric == own.metric and other.target < own.target:
            cheaper[name] = {_SEED: other.members[0].accuracy}
    in_percent = images if criterion.name.startswith("accuracy/") else None
    return find_dominating({_SEED: own.members[0].accuracy}, cheaper, in_percent, criterion.rule)


def _means(figures: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Mean and standard error over pools."""
    means = {}
    for name in figures[0]:
        values = [value for own in figures if (value := own[name]) is not None]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        means[name] = {"mean": _mean(values), "standard_error": error, "pools": len(values)}
    return means


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _table(diagnosis: Mapping[str, Any], columns: Mapping[str, str], form: str) -> list[str]:
    def cell(value: float | None) -> str:
        return "-" if value is None else format(value, form)

    lines = ["| pool | " + " | ".join(columns.values()) + " |", "| --- |" + " --- |" * len(columns)]
    for own in diagnosis["pools"].values():
        cells = [cell(own["figures"][key]) for key in columns]
        lines.append(f"| {own['target']} {diagnosis['units'][own['metric']]} | " + " | ".join(cells) + " |")
    cells = []
    for key in columns:
        own = diagnosis["means"][key]
        error = "" if own["standard_error"] is None else f" ± {format(own['standard_error'], form)}"
        cells.append(cell(own["mean"]) + error)
    lines.append("| mean over pools ± standard error | " + " | ".join(cells) + " |")
    return lines
