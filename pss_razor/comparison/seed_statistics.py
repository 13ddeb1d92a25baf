"""Figures over seeds: means, paired differences, a mean accuracy over log-resource, and what is dominated."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summarise_seeds(values: Mapping[int, float]) -> dict[str, Any]:
    """Mean and standard error over seeds.

    Args:
        values: Seed -> value.

    Returns:
        JSON-able: ``mean``, ``standard_error`` (None for one seed) and ``values`` by seed.
    """
    numbers = list(values.values())
    return {
        "mean": statistics.fmean(numbers),
        "standard_error": statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else None,
        "values": {str(seed): value for seed, value in values.items()},
    }


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> dict[str, Any] | None:
    """First minus second, over the seeds that both have.

    Returns:
        As :func:`summarise_seeds`, and ``ratio``, the mean over its standard error (None where that is unknown or 0);
        None if they share no seed.
    """
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        return None
    row = summarise_seeds({seed: first[seed] - second[seed] for seed in seeds})
    error = row["standard_error"]
    return {**row, "ratio": row["mean"] / error if error else None}


def mean_over_log_resource(
    points: Sequence[tuple[float, float]], low: float | None = None, high: float | None = None
) -> float | None:
    """Mean accuracy over log(resource): the area by the trapezoid rule under the curve of points, over its log range.

    Args:
        points: (resource, accuracy), resources > 0. Between points the accuracy is linear in log(resource).
        low: Where the range starts, within that of the points; None takes the least resource.
        high: Where it ends; None takes the greatest.

    Returns:
        The mean; None if the range is empty.
    """
    if not points:
        return None
    resources, accuracies = (np.array(column, dtype=float) for column in zip(*sorted(points), strict=True))
    logs = np.log(resources)
    start = logs[0] if low is None else math.log(low)
    end = logs[-1] if high is None else math.log(high)
    if not start < end:
        return None
    inside = logs[(logs > start) & (logs < end)]
    grid = np.concatenate([[start], inside, [end]])
    return float(np.trapezoid(np.interp(grid, logs, accuracies), grid) / (end - start))


def binomial_error(first: float, second: float, images: int) -> float:
    """Standard error of the difference of two accuracies in percent, as if measured on ``images`` others each.

    On the same images, two subnets of one supernet mostly err together, so that the true error is smaller.
    """
    return 100 * math.sqrt(sum(p / 100 * (1 - p / 100) for p in (first, second)) / images)


def find_dominating(
    own: Mapping[int, float], cheaper: Mapping[str, Mapping[int, float]], images: int | None, rule: str = "greater"
) -> dict[str, Any] | None:
    """The cheaper subnet that is better by most, if any is better by more than one standard error of the difference.

    The standard error is that over the seeds that both have; where they share only one, it is
    :func:`binomial_error`.

    Args:
        own: Seed -> accuracy of a target's chosen subnet.
        cheaper: Name -> seed -> accuracy of subnets that cost less.
        images: Images of the measurement if the accuracies are in percent; None: one seed shows nothing.
        rule: ``"greater"`` if more is better, else ``"less"``.

    Returns:
        JSON-able ``by`` (the name), ``difference`` (above 0) and ``standard_error``; None if none is so much better.
    """
    sign = 1 if rule == "greater" else -1
    found: list[dict[str, Any]] = []
    for name, values in cheaper.items():
        row = paired_difference(values, own)
        if row is None:
            continue
        error = row["standard_error"]
        if error is None and images is not None:
            seed = next(seed for seed in values if seed in own)
            error = binomial_error(values[seed], own[seed], images)
        if error is not None and sign * row["mean"] > error:
            found.append({"by": name, "difference": sign * row["mean"], "standard_error": error})
    return max(found, key=lambda row: row["difference"], default=None)
