"""Listing all combinations along a chain whose costs add up to within a window, where they are few."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Most bins of all values together, twenty bytes each; a chain that needs more is not listed.
_MOST_BINS = 2**24
# Extensions of partial combinations that are looked at together.
_CHUNK = 2**22


@dataclass(frozen=True)
class _Layer:
    """One step of extending partial combinations: its edges, sorted by the state they lead to."""

    parents: np.ndarray  # of each edge, the state before
    choices: np.ndarray  # of each edge, the value chosen
    starts: np.ndarray  # of each state, its first edge
    sizes: np.ndarray  # of each state, how many edges

    @property
    def states(self) -> np.ndarray:
        """The state that each edge goes into."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def edges_into(self, states: np.ndarray) -> np.ndarray:
        """All edges into each of the states, one state after the other."""
        sizes = self.sizes[states]
        return np.arange(sizes.sum()) + np.repeat(self.starts[states] - (np.cumsum(sizes) - sizes), sizes)


class ChainListing:
    """Lists x_1 … x_n by extending partial combinations, of which only those are kept that can end in an interval.

    Dynamic programming tells in which bins the rest of a combination can end, and for each bin the least and the most
    that such a rest costs. A partial combination that is kept can end in the interval, or has ends of one bin on both
    sides of it. Partial combinations with the same last value and exact cost continue alike and are merged.

    Args:
        costs: Cost of each step (values before, values), in bins.
        units: The costs as whole numbers of a unit, int64, which add up exactly; None if there is no such unit, and
            then nothing is merged.
        most: Most partial combinations to keep, and most combinations to list.
    """

    def __init__(self, costs: Sequence[np.ndarray], units: Sequence[np.ndarray] | None, most: int) -> None:
        self.costs = costs
        self.steps, self._rounding = round_costs(costs)
        self.units = units
        self.most = most

    def find(
        self, interval: tuple[float, float, float], accepts: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray | None:
        """The combinations that are accepted.

        Args:
            interval: Least and most that an accepted combination costs, in bins, and how far rounding may move them.
            accepts: Value indices (N, n) to bool (N,). The answer must depend on the exact cost only.

        Returns:
            int64 (N, n); None if there are more than ``most``, or if finding them takes more than ``most`` partial
            combinations or too much memory.
        """
        layers = self._extend(interval)
        if layers is None:
            return None
        # One combination for each state.
        states = at = np.arange(len(layers[-1].starts))
        columns = []
        for layer in reversed(layers):
            edges = layer.starts[at]
            columns.append(layer.choices[edges])
            at = layer.parents[edges]
        accepted = states[accepts(np.stack(columns[::-1], axis=1))]
        ways: np.ndarray = np.ones(1)
        for layer in layers:
            ways = np.bincount(layer.states, ways[layer.parents], len(layer.starts))
        if ways[accepted].sum() > self.most:
            return None
        at, tails = accepted, np.empty((len(accepted), 0), dtype=np.int64)
        for layer in reversed(layers):
            edges = layer.edges_into(at)
            tails = np.column_stack((layer.choices[edges], np.repeat(tails, layer.sizes[at], axis=0)))
            at = layer.parents[edges]
        return tails

    def _extend(self, interval: tuple[float, float, float]) -> list[_Layer] | None:
        """The layers of all partial combinations that may end in the interval; None if they are too many."""
        if self._ends is None:
            return None
        least, most = interval[0] - interval[2], interval[1] + interval[2]
        # Of each state: its last value, and its cost in whole bins, in exact bins, and in units.
        last: np.ndarray = np.zeros(1, dtype=np.int64)
        binned: np.ndarray = np.zeros(1, dtype=np.int64)
        spent: np.ndarray = np.zeros(1)
        exact: np.ndarray = np.zeros(1, dtype=np.int64)
        layers = []
        for step, cost, ends_after, unit in zip(
            self.steps, self.costs, self._ends, self.units or self.steps, strict=True
        ):
            parts: tuple[list[np.ndarray], list[np.ndarray]] = [], []
            for rows in np.array_split(np.arange(len(last)), 1 + len(last) * step.shape[1] // _CHUNK):
                bins, costs = binned[rows, None] + step[last[rows]], spent[rows, None] + cost[last[rows]]
                chosen = np.nonzero(self._may_end(ends_after, bins, costs, least, most))
                parts[0].append(rows[chosen[0]])
                parts[1].append(chosen[1])
                if sum(map(len, parts[1])) > 16 * self.most:
                    return None
            parents, choices = map(np.concatenate, parts)
            starts: np.ndarray = np.arange(len(choices))
            if self.units is not None:
                total = exact[parents] + unit[last[parents], choices]
                order = np.lexsort((total, choices))
                parents, choices, total = parents[order], choices[order], total[order]
                starts = np.flatnonzero((np.diff(choices, prepend=-1) != 0) | (np.diff(total, prepend=0) != 0))
                exact = total[starts]
            if len(starts) > self.most:
                return None
            layers.append(_Layer(parents, choices, starts, np.diff(np.append(starts, len(choices)))))
            # A state goes on as the first of its combinations.
            edges = last[parents[starts]], choices[starts]
            binned, spent = binned[parents[starts]] + step[edges], spent[parents[starts]] + cost[edges]
            last = choices[starts]
        return layers

    def _may_end(self, ends_after: _Ends, bins: np.ndarray, costs: np.ndarray, least: float, most: float) -> np.ndarray:
        """Whether partial combinations, a column for each last value, may end between two costs, bool (N, values)."""
        above, below = self._rounding[1], self._rounding[0]
        low, high = math.ceil(least - above), math.floor(most - below)
        possible = ends_after.any_from(low - bins, high - bins)
        # Bins that are inside whatever the rounding need no closer look; those at the edges do.
        surely_low, surely_high = math.ceil(least - below), math.floor(most - above)
        unsure = np.nonzero(possible & ~ends_after.any_from(surely_low - bins, surely_high - bins))
        bins, costs, values = bins[unsure], costs[unsure], unsure[1]
        found = np.zeros(len(values), dtype=bool)
        for end in (*range(low, min(surely_low, high + 1)), *range(max(surely_high + 1, surely_low, low), high + 1)):
            cheapest, dearest = ends_after.costs_at(values, end - bins)
            found |= (costs + cheapest <= most) & (costs + dearest >= least)
        possible[unsure] = found
        return possible

    @cached_property
    def _ends(self) -> list[_Ends] | None:
        """For each position, how the remaining steps can end; None if that takes too many bins."""
        lengths = np.cumsum([1, *(int(step.max()) for step in self.steps[:0:-1])])[::-1]
        if sum(int(n) * step.shape[1] for n, step in zip(lengths, self.steps, strict=True)) > _MOST_BINS:
            return None
        cheapest = dearest = np.zeros((self.steps[-1].shape[1], 1))
        found = [_Ends(cheapest, dearest)]
        for step, cost in zip(self.steps[:0:-1], self.costs[:0:-1], strict=True):
            shape, length = (step.shape[0], cheapest.shape[1] + int(step.max())), cheapest.shape[1]
            before = np.full(shape, np.inf), np.full(shape, -np.inf)
            for x, y in np.ndindex(*step.shape):
                place = x, slice(step[x, y], step[x, y] + length)
                np.minimum(before[0][place], cheapest[y] + cost[x, y], out=before[0][place])
                np.maximum(before[1][place], dearest[y] + cost[x, y], out=before[1][place])
            cheapest, dearest = before
            found.append(_Ends(cheapest, dearest))
        return found[::-1]


class _Ends:
    """Which bins the rest of a combination can end in after each value, and the least and most that it costs in each.

    Args:
        cheapest: (values, bins); infinite where nothing ends.
        dearest: (values, bins); minus infinite where nothing ends.
    """

    def __init__(self, cheapest: np.ndarray, dearest: np.ndarray) -> None:
        self._cheapest = cheapest
        self._dearest = dearest
        self._below = np.pad(np.cumsum(np.isfinite(cheapest), axis=1, dtype=np.int32), [(0, 0), (1, 0)])

    def any_from(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Whether the rest can end in a bin from ``low`` to ``high``, for every value: (N, values) in and out."""
        values, bins = np.arange(len(self._below)), self._below.shape[1] - 1
        first, end = np.clip(low, 0, bins), np.clip(high + 1, 0, bins)
        return (end > first) & (self._below[values, end] > self._below[values, first])

    def costs_at(self, values: np.ndarray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and most that the rest costs if it ends in a bin, (N,) each; inf and -inf if it cannot."""
        inside = (bins >= 0) & (bins < self._cheapest.shape[1])
        at = values, np.where(inside, bins, 0)
        return np.where(inside, self._cheapest[at], np.inf), np.where(inside, self._dearest[at], -np.inf)


def ends(costs: Sequence[np.ndarray]) -> tuple[float, float]:
    """Smallest and largest sum along a chain."""
    low = high = np.zeros(costs[0].shape[0])
    for cost in costs:
        low, high = (low[:, None] + cost).min(axis=0), (high[:, None] + cost).max(axis=0)
    return float(low.min()), float(high.max())


def round_costs(costs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], tuple[float, float]]:
    """Costs rounded to whole bins, and the least and the most of a combination's exact minus its rounded cost."""
    steps = [np.rint(cost) for cost in costs]
    return [step.astype(np.int64) for step in steps], ends([c - s for c, s in zip(costs, steps, strict=True)])
