"""Accuracy against resource for several methods, with the spread over seeds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pss_razor.visualization.accuracy_resource import label_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_of_method_comparison(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], units: Mapping[str, str], accuracy: str
) -> Figure:
    """Draw a panel for each metric and in it a curve for each method.

    Args:
        curves: Metric -> method -> resource, mean accuracy and its standard error (0 if unknown) of every target.
        units: Metric -> unit of the resource.
        accuracy: Name of the accuracy, for the label.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(7 * len(curves), 4.6), dpi=130, layout="constrained")
    handles = {}
    for axes, (metric, methods) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for index, (method, points) in enumerate(methods.items()):
            if points:
                resources, means, errors = zip(*sorted(points), strict=True)
                handles[method] = axes.errorbar(
                    resources, means, errors, fmt="o-", ms=4, capsize=3, color=f"C{index % 10}", label=method
                )
        axes.set(xlabel=f"{metric} ({units[metric]})", ylabel=label_of(accuracy))
        axes.grid(alpha=0.3)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize="small")
    return figure


def draw_method_comparison(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], units: Mapping[str, str], accuracy: str
) -> bytes:
    """:func:`figure_of_method_comparison` as a PNG file."""
    buffer = io.BytesIO()
    figure_of_method_comparison(curves, units, accuracy).savefig(buffer, format="png")
    return buffer.getvalue()
