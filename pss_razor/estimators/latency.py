"""Latency of subnets from a table of measured blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pss_razor.core import AdditiveCost, ConfigError, CostTerm
from pss_razor.estimators.graph_estimator import GraphEstimator
from pss_razor.estimators.latency_table import BlockGeometry, LatencyTable
from pss_razor.estimators.layer_spec import BlockSpec, CostGraph
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
        missing: dict[BlockGeometry, None] = {}
        factor, offset_us = self.table.correction

        def latency_us(block: BlockSpec) -> CostTerm:
            def look_up(in_size: int, in_channels: int, out_channels: int, mid_channels: int | None = None) -> float:
                fixed = (block.kernel_size, block.stride, block.padding)
                geometry = BlockGeometry(block.block_type, in_size, in_channels, out_channels, mid_channels, *fixed)
                if geometry not in self.table.latencies_us:
                    missing[geometry] = None
                    return 0.0
                return factor * self.table.latencies_us[geometry]

            # Arrays of Python integers, as the table's keys are.
            names = ("in_size", "in_channels", "out_channels", "mid_channels")

            def tabulate(**sizes: np.ndarray) -> np.ndarray:
                arrays = np.broadcast_arrays(*(sizes[name] for name in names if name in sizes))
                values = [look_up(*key) for key in zip(*(array.ravel().tolist() for array in arrays), strict=True)]
                return np.array(values).reshape(arrays[0].shape)

            return block.tabulate(graph.space, tabulate)

        terms = [latency_us(block) for block in graph.blocks]
        if missing:
            raise ConfigError(
                f"latency table {self.path} lacks {len(missing)} blocks of this search space, the first is "
                f"{next(iter(missing))}; measure a table for this config, or take the config that the table is for"
            )
        return AdditiveCost(graph.space, [*terms, CostTerm((), np.array(offset_us))])
