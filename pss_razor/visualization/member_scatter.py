"""What a pool's members are worth: accuracy against score, visits and age."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pss_razor.visualization.accuracy_resource import label_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 4
_COLOR = "#0072B2"


@dataclass(frozen=True)
class ScatterPanel:
    """The members of one pool.

    Args:
        title: What stands above.
        accuracies: Of each member.
        scores: Of each member.
        level: An accuracy that is drawn as a line, such as that of draws for the same target; None draws none.
        visits: Of each member.
        ages: Steps since each was visited last; None where that is not known.
    """

    title: str
    accuracies: Sequence[float]
    scores: Sequence[float]
    level: float | None = None
    visits: Sequence[int] = ()
    ages: Sequence[float | None] = ()


def figure_of_scores(panels: Sequence[ScatterPanel], accuracy: str, level: str = "") -> Figure:
    """Draw accuracy against score, a panel for each pool.

    Args:
        panels: The pools.
        accuracy: Name of the accuracy, for the label.
        level: What the lines of the panels are, for the label.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=_size_of_grid(panels), dpi=110, layout="constrained")
    _draw_scores(figure, panels, accuracy, level)
    return figure


def figure_of_diagnosis(panels: Sequence[ScatterPanel], accuracy: str, level: str = "") -> Figure:
    """:func:`figure_of_scores`, and below it the accuracy of all members against visits and age.

    Below, accuracies are those above the mean of the members of the same pool, so that all pools can share a panel.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here
    from matplotlib.ticker import StrMethodFormatter

    width, height = _size_of_grid(panels)
    figure = Figure(figsize=(width, height + 3.4), dpi=110, layout="constrained")
    scores, others = figure.subfigures(2, 1, height_ratios=[height, 3.4])
    _draw_scores(scores, panels, accuracy, level)
    by_visits, by_age = others.subplots(1, 2, sharey=True)
    for panel in panels:
        if panel.accuracies:
            above = [value - fmean(panel.accuracies) for value in panel.accuracies]
            by_visits.plot(panel.visits, above, ".", color=_COLOR, alpha=0.5)
            known = [(age, value) for age, value in zip(panel.ages, above, strict=True) if age is not None]
            by_age.plot([age for age, _ in known], [value for _, value in known], ".", color=_COLOR, alpha=0.5)
    by_visits.set(xscale="log", xlabel="visits", ylabel=f"{label_of(accuracy)} above the pool's mean")
    by_visits.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    by_age.set(xlabel="steps since the last visit")
    for axes in (by_visits, by_age):
        axes.axhline(0, color="0.5", lw=0.8)
        axes.grid(alpha=0.3)
    return figure


def draw_scores(panels: Sequence[ScatterPanel], accuracy: str, level: str = "") -> bytes:
    """:func:`figure_of_scores` as a PNG file."""
    return _to_png(figure_of_scores(panels, accuracy, level))


def draw_diagnosis(panels: Sequence[ScatterPanel], accuracy: str, level: str = "") -> bytes:
    """:func:`figure_of_diagnosis` as a PNG file."""
    return _to_png(figure_of_diagnosis(panels, accuracy, level))


def _draw_scores(figure: Any, panels: Sequence[ScatterPanel], accuracy: str, level: str) -> None:
    columns = max(1, min(_COLUMNS, len(panels)))
    grid = figure.subplots(max(1, math.ceil(len(panels) / columns)), columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.plot(panel.scores, panel.accuracies, ".", color=_COLOR)
        if panel.level is not None:
            axes.axhline(panel.level, color="#D55E00", ls="--", lw=1, label=level)
        axes.set_title(panel.title, fontsize="small")
        axes.tick_params(labelsize="small")
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("score", fontsize="medium")
    figure.supylabel(label_of(accuracy), fontsize="medium")
    lines = [line for axes in grid.flat for line in axes.lines if line.get_label() == level]
    if level and lines:
        figure.legend([lines[0]], [level], loc="outside upper right", fontsize="small")


def _size_of_grid(panels: Sequence[Any]) -> tuple[float, float]:
    columns = max(1, min(_COLUMNS, len(panels)))
    return max(7.0, 2.7 * columns), 2.3 * max(1, math.ceil(len(panels) / columns)) + 0.6


def _to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
