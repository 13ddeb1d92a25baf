"""Accuracy against resource."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def label_of(metric: str) -> str:
    """The label of an axis with a metric; accuracies are in percent."""
    return f"{metric.removeprefix('accuracy/')} (%)" if metric.startswith("accuracy/") else metric


def draw_accuracy_against_resource(
    records: Sequence[Mapping[str, Any]], best: Sequence[Mapping[str, Any]], metric: str, unit: str, accuracy: str
) -> bytes:
    """Draw the subnets of one metric's pools.

    Args:
        records: With ``name``, ``metric``, ``resources`` and ``metrics``; see :class:`PoolEvaluator`.
        best: Those of them that are the best of their pools.
        metric: The metric on the horizontal axis; only its pools are drawn, with the largest and smallest subnet.
        unit: Its unit, for the label.
        accuracy: Name of the metric on the vertical axis; accuracies are in percent.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    def points(chosen: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
        return [r["resources"][metric] for r in chosen], [r["metrics"][accuracy] for r in chosen]

    in_pools = [r for r in records if r["metric"] == metric]
    best_in_pools = [r for r in best if r["metric"] == metric]
    figure = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*points(in_pools), ".", color="0.7", label="subnets of the pools")
    axes.plot(
        *points(sorted(best_in_pools, key=lambda r: r["resources"][metric])), "o-", ms=4, label="best of each pool"
    )
    for name, marker in (("largest", "^"), ("smallest", "v")):
        axes.plot(*points([r for r in records if r["name"] == name]), marker, color="C3", label=f"{name} subnet")
    axes.set(xlabel=f"{metric} ({unit})", ylabel=label_of(accuracy))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
