"""The main figure of the paper: top-1 against FLOPs, GPU latency and CPU latency, a row for each backbone."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
# Unit -> what it counts, and how many of that.
_UNITS = {"MFLOPs": ("FLOPs", 1e6), "MMACs": ("FLOPs", 1e6), "us": ("s", 1e-6), "ms": ("s", 1e-3), "s": ("s", 1.0)}
_PUBLISHED = Path(__file__).with_name("paper_results.json")


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
    """

    backbone: str
    metric: str
    label: str
    unit: str
    points: tuple[tuple[float, float], ...]
    published: bool = False

    def in_unit_of_panel(self) -> tuple[list[float], list[float]]:
        """Resources in the panel's unit, increasing, and accuracies.

        Raises:
            ConfigError: The unit is unknown, or none of this metric.
        """
        _, wanted = PANELS[self.metric]
        kind, size = _UNITS.get(self.unit, (None, 1.0))
        wanted_kind, wanted_size = _UNITS[wanted]
        if kind != wanted_kind:
            known = [unit for unit, (k, _) in _UNITS.items() if k == wanted_kind]
            raise ConfigError(f"{self.label}: {self.metric} is in {self.unit!r}; it can be drawn from {known}")
        ordered = sorted(self.points)
        return [resource * size / wanted_size for resource, _ in ordered], [accuracy for _, accuracy in ordered]


def published_curves() -> list[Curve]:
    """The points that the paper reports; ``paper_results.json`` names the source."""
    curves = []
    for result in json.loads(_PUBLISHED.read_text())["results"]:
        backbone = result["supernet"].split("-")[1].lower()
        points = tuple((float(resource), float(accuracy)) for resource, accuracy in result["points"])
        curves.append(Curve(backbone, result["metric"], result["supernet"], result["unit"], points, published=True))
    return curves


def figure_of_main_result(curves: Sequence[Curve]) -> Figure:
    """Draw curves, each in the panel of its backbone and metric.

    Args:
        curves: At least one.

    Returns:
        A figure with a row of three panels for each backbone.

    Raises:
        ConfigError: There is nothing to draw, or a unit is unknown.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    if not curves:
        raise ConfigError("there is nothing to draw; give results, or the published points with --published")
    rows = [row for row in BACKBONES if row != "r50" or any(curve.backbone == row for curve in curves)]
    labels = list(dict.fromkeys(curve.label for curve in curves))
    colors = {label: f"C{index % 10}" for index, label in enumerate(labels)}
    figure = Figure(figsize=(13, 4 * len(rows) + 0.8), dpi=110, layout="constrained")
    panels = figure.subplots(len(rows), len(PANELS), squeeze=False)
    handles = {}
    for row, backbone in enumerate(rows):
        for column, (metric, (name, unit)) in enumerate(PANELS.items()):
            axes = panels[row][column]
            title, _ = BACKBONES[backbone]
            axes.set(title=title, xlabel=f"{name} ({unit.replace('us', 'µs')})", ylabel="top-1 (%)")
            axes.grid(alpha=0.3)
            for curve in curves:
                if (curve.backbone, curve.metric) != (backbone, metric):
                    continue
                label = f"{curve.label} (published)" if curve.published else curve.label
                style = dict(linestyle=":", marker="x", alpha=0.8) if curve.published else dict(marker="o", ms=4)
                (line,) = axes.plot(*curve.in_unit_of_panel(), label=label, color=colors[curve.label], **style)
                handles.setdefault(label, line)
            if not axes.lines:
                axes.text(0.5, 0.5, "no results", transform=axes.transAxes, ha="center", color="0.5")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize="small")
    return figure


def draw_main_result(curves: Sequence[Curve]) -> bytes:
    """:func:`figure_of_main_result` as a PNG file."""
    buffer = io.BytesIO()
    figure_of_main_result(curves).savefig(buffer, format="png")
    return buffer.getvalue()
