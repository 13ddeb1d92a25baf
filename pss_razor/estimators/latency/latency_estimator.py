"""Latency of subnets from a table of measured blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pss_razor.core import AdditiveCost, ConfigError, CostTerm
from pss_razor.core.cost_graph import BlockGeometry, CostGraph, Extent, MeasuredBlock
from pss_razor.estimators.graph.graph_estimator import GraphEstimator
from pss_razor.estimators.latency.interpolation import fill_between
from pss_razor.estimators.latency.latency_table import LatencyTable
from pss_razor.registry import TASK_UTILS


@TASK_UTILS.register_module()
class LatencyEstimator(GraphEstimator):
    """The latency of a subnet, in microseconds an image: the sum over its blocks of what a table says.

    Args:
        table: A latency table's file.
        device: The device that the table must be of, ``"cpu"`` or ``"cuda"``.

    Example:
        ``estimators=dict(latency_cpu=dict(type='LatencyEstimator', table='tables/mbv2_cpu.json', device='cpu'))``

    Raises:
        ConfigError: The table is missing, malformed, or of another device.
    """

    unit = "us"

    def __init__(self, table: str | Path, device: str) -> None:
        super().__init__()
        self.path = Path(table)
        self.table = LatencyTable.load(self.path)
        if self.table.device != device:
            raise ConfigError(
                f"latency table {self.path} is of the device {self.table.device!r}, the config asks for {device!r}"
            )

    def build_cost(self, graph: CostGraph) -> AdditiveCost:
        """The latency of every subnet, in microseconds.

        Raises:
            ConfigError: The table lacks blocks of this search space.
        """
        try:
            return latency_cost(self.table, graph)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from error


def latency_cost(table: LatencyTable, graph: CostGraph) -> AdditiveCost:
    """The latency of every subnet, in microseconds: the sum of its blocks, with the table's correction.

    Raises:
        ConfigError: The table lacks blocks of this search space.
    """
    missing: dict[BlockGeometry, None] = {}
    factor, offset_us = table.correction
    terms = [CostTerm((), np.array(offset_us))]
    for block in graph.blocks:
        names = block.groups(graph.space)
        ends = []
        for geometries, values in _look_up(table, graph, block):
            missing |= dict.fromkeys(geometries[np.isnan(values)])
            ends.append(factor * values)
        terms.append(CostTerm(names, ends[0]))
        if block.concatenated:
            terms += _concatenation_terms(names, ends[0], ends[1], block.concatenated)
    if missing:
        raise ConfigError(
            f"the latency table lacks {len(missing)} blocks of this search space, the first is {next(iter(missing))}; "
            "measure a table for this config (pss-latency), or take the config that the table is for"
        )
    return AdditiveCost(graph.space, terms)


def _concatenation_terms(
    names: tuple[str, ...], widest: np.ndarray, narrowest: np.ndarray, widths: Sequence[Extent]
) -> list[CostTerm]:
    """What a block takes less where its concatenated inputs are narrower, a term for each: linear in their sum."""
    span = sum(int(extent.values[-1] - extent.values[0]) for extent in widths)
    slope = (widest - narrowest) / span
    return [
        CostTerm((*names, extent.dimension), slope[..., None] * (extent.values - extent.values[-1]))
        for extent in widths
        if extent.dimension is not None
    ]


def block_latencies(table: LatencyTable, graph: CostGraph) -> dict[BlockGeometry, float]:
    """The latency of every block of a search space, in microseconds, NaN where the table does not tell."""
    return {
        geometry: float(value)
        for block in graph.blocks
        for geometries, values in _look_up(table, graph, block)
        for geometry, value in zip(geometries.flat, values.flat, strict=True)
        if geometry is not None
    }


def _look_up(table: LatencyTable, graph: CostGraph, block: MeasuredBlock) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The geometries of each variant of a block and their latencies.

    NaN where a latency is unknown, 0 where the block does not run.
    """
    for _, geometries in block.variants(graph.space):
        known = [0.0 if g is None else table.latencies_us.get(g, np.nan) for g in geometries.flat]
        values = np.array(known).reshape(geometries.shape)
        if table.interpolate:
            values = fill_between(values, block.coordinates(graph.space))
        yield geometries, values
