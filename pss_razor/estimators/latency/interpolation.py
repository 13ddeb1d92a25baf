"""Latency tables where there are too many block geometries: a subset is measured, the rest is interpolated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pss_razor.core.cost_graph import BlockGeometry, CostGraph


def choose_subset(graph: CostGraph, max_blocks: int) -> set[BlockGeometry]:
    """The geometries to measure: all, or a subset from which :func:`fill_between` interpolates the others.

    Of every size that a block depends on (area of its feature map, widths), every s-th value and the last are taken,
    with the smallest s for which at most ``max_blocks`` geometries remain.

    Args:
        graph: The cost graph.
        max_blocks: Most geometries; exceeded if the smallest and the largest value of each size give more.
    """
    arrays = [
        (geometries, block.coordinates(graph.space))
        for block in graph.blocks
        for _, geometries in block.variants(graph.space)
    ]
    chosen: set[BlockGeometry] = set()
    for every in range(1, max(graph.space.shape) + 1):
        fewer = {geometry for geometries, axes in arrays for geometry in _thin(geometries, axes, every)}
        if chosen and len(fewer) == len(chosen) and every > 1:
            continue
        chosen = fewer
        if len(chosen) <= max_blocks:
            break
    return chosen


def _thin(geometries: np.ndarray, axes: Sequence[np.ndarray | None], every: int) -> set[BlockGeometry]:
    kept = []
    for axis, count in zip(axes, geometries.shape, strict=True):
        if axis is None:
            kept.append(np.arange(count))
        else:
            values = np.unique(axis)
            kept.append(np.flatnonzero(np.isin(axis, np.append(values[::every], values[-1]))))
    chosen = geometries[np.ix_(*kept)] if axes else geometries
    return {geometry for geometry in chosen.flat if geometry is not None}


def fill_between(values: np.ndarray, axes: Sequence[np.ndarray | None]) -> np.ndarray:
    """Interpolate missing values linearly, along one axis after the other; nothing is extrapolated.

    Args:
        values: Float array, NaN where unknown.
        axes: Coordinates along each axis of ``values``, increasing, equal ones allowed; None for an axis along which
            nothing is filled.

    Returns:
        A filled copy; NaN stays where no known values lie on both sides.
    """
    result = values.copy()
    for number, axis in enumerate(axes):
        if axis is None:
            continue
        lines = np.moveaxis(result, number, -1)
        for index in np.ndindex(lines.shape[:-1]):
            line = lines[index]
            known = np.flatnonzero(~np.isnan(line))
            if 0 < len(known) < len(line):
                inside = np.isnan(line) & (axis >= axis[known[0]]) & (axis <= axis[known[-1]])
                line[inside] = np.interp(axis[inside], axis[known], line[known])
    return result
