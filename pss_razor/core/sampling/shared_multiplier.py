"""Subnets whose widths follow one multiplier for all layers."""

from __future__ import annotations

import itertools

import numpy as np

from pss_razor.core.errors import ConfigError
from pss_razor.core.space.search_space import SearchSpace

# Breakpoints nearer than this are one: 1/3 is not the same float after different sums.
_TOLERANCE = 1e-9


def shared_multiplier_subnets(space: SearchSpace, all_resolutions: bool) -> tuple[np.ndarray, np.ndarray]:
    """The subnets whose widths follow one multiplier for all layers, and their exact probabilities.

    Every width takes the value at the same quantile u of its own distribution, u uniform in [0, 1]. Where all widths
    have one interval of multipliers, that is the network of the multiplier ``low + u * (high - low)``. The network
    changes only at the breakpoints of a width's cumulative probabilities: each interval between them gives one network.

    Args:
        space: The search space.
        all_resolutions: Whether the resolution is drawn, independently, from its distribution; else it is the largest.

    Returns:
        Value indices int64 (N, D) of the distinct subnets, by resolution and then by width, and probabilities
        float64 (N,), sum 1.

    Raises:
        ConfigError: The space searches something other than widths and the resolution.
    """
    others = [d.name for d in space.dimensions if d.kind not in ("channels", "resolution")]
    if others:
        raise ConfigError(
            f"the search groups {others} are no widths: one multiplier for all layers says nothing of them; use the "
            "baseline 'uniform', or shared_share=0 of the pools' hook, or search widths and the resolution only"
        )
    cumulative: dict[int, np.ndarray] = {
        column: np.cumsum(np.asarray(dimension.probabilities))[:-1]
        for column, dimension in enumerate(space.dimensions)
        if dimension.kind == "channels"
    }
    breakpoints = [0.0]
    for point in sorted(itertools.chain(*cumulative.values(), [1.0])):
        if point - breakpoints[-1] > _TOLERANCE:
            breakpoints.append(point)
    quantiles = [(left + right) / 2 for left, right in itertools.pairwise(breakpoints)]
    widths = np.zeros((len(quantiles), len(space)), dtype=np.int64)
    for column, edges in cumulative.items():
        widths[:, column] = np.searchsorted(edges, quantiles)
    lengths = np.diff(breakpoints)

    resolution = next((c for c, d in enumerate(space.dimensions) if d.kind == "resolution"), None)
    if resolution is None:
        return widths, lengths
    values = range(space.shape[resolution]) if all_resolutions else [space.shape[resolution] - 1]
    indices = np.tile(widths, (len(values), 1))
    indices[:, resolution] = np.repeat(values, len(widths))
    weights = np.asarray(space.dimensions[resolution].probabilities)[values]
    return indices, np.outer(weights / weights.sum(), lengths).ravel()
