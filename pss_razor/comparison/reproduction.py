"""Published points of a supernet, beside the subnets nearest to them in resource."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pss_razor.core import EvaluatedSubnet
from pss_razor.visualization import Curve
from pss_razor.visualization.main_result import PANELS, factor_to_panel


@dataclass(frozen=True)
class Reproduction:
    """A published point and the subnet nearest to it in resource.

    Args:
        published_resource: In the unit of the paper's figure.
        published_accuracy: Top-1 in percent.
        resource: Of the subnet, in the same unit.
        accuracy: Of the subnet, in percent; None if it was not evaluated.
        name: The subnet's pool, or ``"largest"``, ``"smallest"``.
        resolution: Of the subnet.
    """

    published_resource: float
    published_accuracy: float
    resource: float
    accuracy: float | None
    name: str
    resolution: int


def find_nearest(
    published: Curve, subnets: Sequence[EvaluatedSubnet], units: Mapping[str, str], accuracy: str | None = None
) -> list[Reproduction]:
    """The subnet nearest in resource to each published point, of the metric's pools, the largest and the smallest.

    Args:
        published: Points of one metric.
        subnets: One of each pool; without metrics if they were not evaluated.
        units: Metric -> unit of their resources.
        accuracy: The metric that is compared with the published top-1; None if nothing was evaluated.
    """
    metric = published.metric
    factor = factor_to_panel(metric, units[metric])
    candidates = [own for own in subnets if own.metric in (metric, None)]
    found = []
    for resource, published_accuracy in zip(*published.in_unit_of_panel(), strict=True):
        nearest = min(candidates, key=lambda own: abs(own.resources[metric] * factor - resource))
        own = None if accuracy is None else nearest.measured[accuracy]
        own_resource, resolution = nearest.resources[metric] * factor, nearest.subnet["resolution"]
        found.append(Reproduction(resource, published_accuracy, own_resource, own, nearest.name, resolution))
    return found


def make_curve(
    subnets: Sequence[EvaluatedSubnet],
    units: Mapping[str, str],
    metric: str,
    accuracy: str,
    published: Curve,
    dataset: str | None,
) -> Curve:
    """The curve that is drawn beside a published one: a subnet of each pool of a metric, the largest and the smallest.

    Args:
        subnets: As in :func:`find_nearest`, evaluated.
        units: Metric -> unit of their resources.
        metric: The metric of the resources.
        accuracy: The metric that is drawn.
        published: The published curve; its name and backbone are taken.
        dataset: See :class:`~pss_razor.visualization.Curve`.
    """
    points = tuple((own.resources[metric], own.measured[accuracy]) for own in subnets if own.metric in (metric, None))
    return Curve(published.backbone, metric, f"{published.label} (here)", units[metric], points, dataset=dataset)


def format_reproductions(metric: str, rows: Sequence[Reproduction]) -> str:
    """A text table with a row for each published point; without accuracies where nothing was evaluated."""
    name, unit = PANELS[metric]
    evaluated = [row for row in rows if row.accuracy is not None]
    accuracies = ["published top-1", "here", "difference"] if evaluated else ["published top-1"]
    table = [[f"published {unit}", "nearest", "off by", *accuracies, "resolution", "pool"]]
    for row in rows:
        cells = [f"{row.published_resource:g}", f"{row.resource:.2f}"]
        cells += [f"{row.resource / row.published_resource - 1:+.1%}", f"{row.published_accuracy:.2f}"]
        if row.accuracy is not None:
            cells += [f"{row.accuracy:.2f}", f"{row.accuracy - row.published_accuracy:+.2f}"]
        table.append([*cells, str(row.resolution), row.name])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    if evaluated:
        differences = [row.accuracy - row.published_accuracy for row in evaluated if row.accuracy is not None]
        worst = max(differences, key=abs)
        lines.append(f"difference in top-1: mean {statistics.fmean(differences):+.2f}, largest {worst:+.2f}")
    return "\n".join([f"{name} ({metric})", *lines])
