"""Accuracy against resource for several methods, with the spread over seeds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pss_razor.visualization.accuracy_resource import label_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, which people with any colour vision can tell apart; markers for prints without colour.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = "osD^vPX*"


def figure_of_method_comparison(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], units: Mapping[str, str], accuracy: str
) -> Figure:
    """Draw a panel for each metric, its axis logarithmic, and in it a line and a band of ± its error for each method.

    Args:
        curves: Metric -> method -> resource, mean accuracy and its standard error (0 if unknown) of every target.
        units: Metric -> unit of the resource.
        accuracy: Name of the accuracy, for the label.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(7 * len(curves), 4.8), dpi=130, layout="constrained")
    handles = {}
    for axes, (metric, methods) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for index, (method, points) in enumerate(methods.items()):
            if not points:
                continue
            resources, means, errors = (list(column) for column in zip(*sorted(points), strict=True))
            color, marker = _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]
            (handles[method],) = axes.plot(resources, means, marker=marker, ms=4.5, lw=1.6, color=color, label=method)
            if len(points) > 1:
                low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
                axes.fill_between(resources, low, high, color=color, alpha=0.18, lw=0)
            else:  # a band over one point cannot be seen
                axes.errorbar(resources, means, errors, fmt="none", capsize=3, color=color)
        axes.set(xscale="log", xlabel=f"{metric} ({units[metric]})", ylabel=label_of(accuracy))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
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
