"""Accuracy against resource."""

from __future__ import annotations

import io
from collections.abc import Sequence

from pss_razor.core import EvaluatedSubnet


def label_of(metric: str) -> str:
    """The label of an axis with a metric; accuracies are in percent."""
    return f"{metric.removeprefix('accuracy/')} (%)" if metric.startswith("accuracy/") else metric


def draw_accuracy_against_resource(
    subnets: Sequence[EvaluatedSubnet], best: Sequence[EvaluatedSubnet], metric: str, unit: str, accuracy: str
) -> bytes:
    """Draw the subnets of one metric's pools.

    Args:
        subnets: Evaluated.
        best: Those of them that are the best of their pools.
        metric: The metric on the horizontal axis; only its pools are drawn, with the largest and smallest subnet.
        unit: Its unit, for the label.
        accuracy: Name of the metric on the vertical axis; accuracies are in percent.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    def points(chosen: Sequence[EvaluatedSubnet]) -> tuple[list[float], list[float]]:
        return [own.resources[metric] for own in chosen], [own.measured[accuracy] for own in chosen]

    in_pools = [own for own in subnets if own.metric == metric]
    best_in_pools = [own for own in best if own.metric == metric]
    figure = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*points(in_pools), ".", color="0.7", label="subnets of the pools")
    axes.plot(
        *points(sorted(best_in_pools, key=lambda own: own.resources[metric])), "o-", ms=4, label="best of each pool"
    )
    for name, marker in (("largest", "^"), ("smallest", "v")):
        axes.plot(*points([own for own in subnets if own.name == name]), marker, color="C3", label=f"{name} subnet")
    axes.set(xlabel=f"{metric} ({unit})", ylabel=label_of(accuracy))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
