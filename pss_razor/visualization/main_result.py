"""The main figure of the paper: top-1 against FLOPs, GPU latency and CPU latency, a row for each backbone.

Results on other data than ImageNet have rows of their own.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pss_razor.core import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Row -> its title and the backbone that results files name; the last is drawn only if there are results of it.
BACKBONES = {
    "mbv1": ("MobileNetV1", "SlimmableMobileNetV1"),
    "mbv2": ("MobileNetV2", "SlimmableMobileNetV2"),
    "r50": ("ResNet-50", "SlimmableResNet"),
}
# Metric -> the label and unit of its panel.
PANELS = {"flops": ("FLOPs", "MFLOPs"), "latency_gpu": ("GPU latency", "us"), "latency_cpu": ("CPU latency", "ms")}
# Unit -> base unit, and how many of them it is.
_UNITS = {"MFLOPs": ("FLOPs", 1e6), "MMACs": ("FLOPs", 1e6), "us": ("s", 1e-6), "ms": ("s", 1e-3), "s": ("s", 1.0)}
# All points of the paper's figure, and those that its tables name.
_FIGURE = Path(__file__).with_name("paper_figure.json")
_RESULTS = Path(__file__).with_name("paper_results.json")
# Colour, marker and line of published curves, by method or by the last letter of a supernet. Latencies of the other
# methods were published in whole milliseconds, so that lines would zigzag.
_PUBLISHED_STYLES = {
    "US-Net": ("0.6", "v", "none"),
    "MutualNet": ("0.3", "s", "none"),
    "F": ("C0", ".", ":"),
    "G": ("C0", ".", ":"),
    "C": ("C0", ".", ":"),
    "M": ("C1", ".", ":"),
}
_OWN_COLORS = ("C3", "C2", "C4", "C5", "C6", "C8", "C9", "C7")


@dataclass(frozen=True)
class Curve:
    """Accuracies of one supernet in one panel.

    Args:
        backbone: Row, a key of :data:`BACKBONES`.
        metric: Column, a key of :data:`PANELS`.
        label: Name of the supernet.
        unit: Unit of the resources.
        points: Resource and top-1 in percent of each subnet.
        published: Whether the figures are the paper's instead of ours.
        dataset: Dataset of the accuracies, for the title of its own row; None is ImageNet.
    """

    backbone: str
    metric: str
    label: str
    unit: str
    points: tuple[tuple[float, float], ...]
    published: bool = False
    dataset: str | None = None

    def in_unit_of_panel(self) -> tuple[list[float], list[float]]:
        """Resources in the panel's unit, increasing, and accuracies.

        Raises:
            ConfigError: The unit is unknown, or none of this metric.
        """
        try:
            factor = factor_to_panel(self.metric, self.unit)
        except ConfigError as error:
            raise ConfigError(f"{self.label}: {error}") from error
        ordered = sorted(self.points)
        return [resource * factor for resource, _ in ordered], [accuracy for _, accuracy in ordered]


def factor_to_panel(metric: str, unit: str) -> float:
    """The factor from ``unit`` to the unit of the metric's panel.

    Raises:
        ConfigError: The unit is unknown, or none of this metric.
    """
    wanted_kind, wanted_size = _UNITS[PANELS[metric][1]]
    kind, size = _UNITS.get(unit, (None, 1.0))
    if kind != wanted_kind:
        known = [name for name, (k, _) in _UNITS.items() if k == wanted_kind]
        raise ConfigError(f"{metric} is in {unit!r}; it can be drawn from {known}")
    return size / wanted_size


def published_curves() -> list[Curve]:
    """All curves of the paper's figure: every subnet of the eight supernets, US-Net, MutualNet."""
    backbones = {title: backbone for backbone, (title, _) in BACKBONES.items()}
    return [
        Curve(
            backbones[series["backbone"]],
            series["metric"],
            series["method"],
            series["unit"],
            tuple((float(resource), float(accuracy)) for resource, accuracy in series["points"]),
            published=True,
        )
        for series in json.loads(_FIGURE.read_text())["series"]
    ]


def published_results(supernet: str) -> list[Curve]:
    """The points that the paper's tables name of a supernet, e.g. ``"PSS-MBV1-F"``; a curve for each metric."""
    return [
        Curve(
            supernet.split("-")[1].lower(),
            result["metric"],
            supernet,
            result["unit"],
            tuple((float(resource), float(accuracy)) for resource, accuracy in result["points"]),
            published=True,
        )
        for result in json.loads(_RESULTS.read_text())["results"]
        if result["supernet"] == supernet
    ]


def figure_of_main_result(curves: Sequence[Curve], compact: bool = False) -> Figure:
    """Draw curves, each in the panel of its data, backbone and metric.

    Args:
        curves: At least one.
        compact: Leave out rows and columns without curves.

    Returns:
        A figure with a row of three panels for each backbone, those of ImageNet first.

    Raises:
        ConfigError: There is nothing to draw, or a unit is unknown.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    if not curves:
        raise ConfigError("there is nothing to draw; give results, or the published points with --published")
    found = list(dict.fromkeys((curve.dataset, curve.backbone) for curve in curves))
    imagenet = [row for row in BACKBONES if (None, row) in found]
    if imagenet and not compact:
        imagenet = [row for row in BACKBONES if row != "r50" or row in imagenet]
    rows = [(None, backbone) for backbone in imagenet] + [row for row in found if row[0] is not None]
    columns = [metric for metric in PANELS if not compact or any(curve.metric == metric for curve in curves)]
    colors = _choose_colors(curves)
    size = (4.6 * len(columns), 4.3 * len(rows))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, (dataset, backbone) in enumerate(rows):
        for column, metric in enumerate(columns):
            axes = panels[row][column]
            name, unit = PANELS[metric]
            title, _ = BACKBONES[backbone]
            title = title if dataset is None else f"{title}\n{dataset}"
            axes.set(title=title, xlabel=f"{name} ({unit.replace('us', 'µs')})", ylabel="top-1 (%)")
            axes.grid(alpha=0.3)
            for curve in curves:
                if (curve.dataset, curve.backbone, curve.metric) == (dataset, backbone, metric):
                    _draw(axes, curve, colors[curve.label])
            if axes.lines:  # below the axes: points may fill every corner
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize="x-small")
            elif dataset is not None:
                axes.set_visible(False)
            else:
                axes.text(0.5, 0.5, "no results", transform=axes.transAxes, ha="center", color="0.5")
    return figure


def _choose_colors(curves: Sequence[Curve]) -> dict[str, str]:
    """A colour for each label; our curve and the published one of a supernet share theirs."""
    labels = list(dict.fromkeys(curve.label for curve in curves))
    published = {curve.label for curve in curves if curve.published}
    own = itertools.cycle(_OWN_COLORS)
    return {label: _published_style(label)[0] if label in published else next(own) for label in labels}


def _published_style(label: str) -> tuple[str, str, str]:
    """Colour, marker and line."""
    return _PUBLISHED_STYLES[label if label in _PUBLISHED_STYLES else label.rpartition("-")[2]]


def _draw(axes: Any, curve: Curve, color: str) -> None:
    """A curve with its label; the published ones are thin, so that ours stand out."""
    style: dict[str, Any] = dict(marker="o", ms=4, label=curve.label, zorder=3)
    if curve.published:
        _, marker, line = _published_style(curve.label)
        size = 4 if marker == "." else 3
        style = dict(marker=marker, ms=size, linestyle=line, lw=1, label=f"{curve.label} (published)")
    axes.plot(*curve.in_unit_of_panel(), color=color, **style)


def draw_main_result(curves: Sequence[Curve], compact: bool = False) -> bytes:
    """:func:`figure_of_main_result` as a PNG file."""
    buffer = io.BytesIO()
    figure_of_main_result(curves, compact).savefig(buffer, format="png")
    return buffer.getvalue()
