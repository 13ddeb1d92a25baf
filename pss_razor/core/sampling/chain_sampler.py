"""Conditional sampling in spaces that are too large to enumerate, along a chain of layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pss_razor.core.errors import ConfigError
from pss_razor.core.sampling.binned_sampler import BINS_A_STEP, MOST_LISTED, BinnedDistribution, BinnedSampler, cumulate
from pss_razor.core.sampling.chain_listing import ChainListing, ends, round_costs
from pss_razor.core.space.cost import AdditiveCost

# Each bin is split into so many, one number after the other, until a target's subnets can be listed.
_FINER = (1, 8, 64)
# Draws that are made together: what they look at stays in the processor's cache.
_CHUNK = 1024


@dataclass(frozen=True)
class _Choice:
    """One position of the chain: what each value weighs, for every window of bins that may be left.

    A value's weight is its probability, times the probability that the rest of the chain ends in the window. It is
    stored for every lower edge of the window, one value after the other, with zeros between them.

    Args:
        weights: The weights, flat.
        starts: Of each value and value before, where in ``weights`` the lower edge 0 is (values, values before).
        steps: By how many bins a value shifts the window, (values, values before).
        edges: Lower edges below and above all those of any weight.
    """

    weights: np.ndarray
    starts: np.ndarray
    steps: np.ndarray
    edges: tuple[int, int]

    @classmethod
    def tabulate(cls, step: np.ndarray, probability: np.ndarray, tail: np.ndarray, bins: int) -> _Choice:
        """Of a window of so many bins.

        Args:
            step: Cost of going on to each value, in bins (values before, values).
            probability: Probability of each value.
            tail: Probability of each binned cost of the steps after each value (values, bins).
            bins: Number of bins in the window.
        """
        length = tail.shape[1] + bins - 1
        padded = np.pad(tail, [(0, 0), (bins, bins)])
        # Sums from both ends: a difference of sums near one would lose the tails' small probabilities.
        below, above = np.cumsum(padded, axis=1), np.cumsum(padded[:, ::-1], axis=1)[:, ::-1]
        up_to, beyond = below[:, bins : bins + length], above[:, 1 : 1 + length]
        from_below, from_above = up_to - below[:, :length], beyond - above[:, bins + 1 : bins + 1 + length]
        # Whichever end is nearer has the smaller, more precise sums.
        inside = np.where(up_to < beyond, from_below, from_above)
        margin = int(step.max()) + 2
        weights = np.zeros(margin + len(tail) * (length + margin))
        rows = weights[margin:].reshape(len(tail), length + margin)
        np.multiply(probability[:, None], np.maximum(inside, 0.0), out=rows[:, :length])
        starts = margin + bins - 1 + np.arange(len(tail)) * rows.shape[1] - step
        return cls(weights, np.ascontiguousarray(starts.T), np.ascontiguousarray(step.T), (-bins, tail.shape[1]))

    def draw(self, previous: np.ndarray, low: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The chosen values and the lower edges that are left, (N,) each, of random numbers (N,)."""
        cumulative = self.weights.take(self.starts.take(previous, axis=1) + low)
        cumulate(cumulative)
        chosen = (cumulative <= numbers * cumulative[-1]).sum(axis=0)
        chosen = np.minimum(chosen, len(cumulative) - 1)
        low = np.minimum(np.maximum(low - self.steps[chosen, previous], self.edges[0]), self.edges[1])
        return chosen, low


class _Chain(BinnedDistribution):
    """The search space at one resolution: widths x_1 … x_n whose costs add up along the chain.

    ``steps[i][x_{i-1}, x_i]`` is the cost, in whole bins, of going on to ``x_i``. The probabilities of the sums of all
    steps after ``x_i`` follow by dynamic programming.

    Args:
        constant: Cost that all combinations have in common.
        costs: Cost of each step.
        probabilities: Probabilities of the values at each position.
        width: Width of a bin, in the unit of the costs.
        targets: Least and most cost of each target.
    """

    def __init__(
        self,
        constant: float,
        costs: list[np.ndarray],
        probabilities: list[np.ndarray],
        width: float,
        targets: Iterable[tuple[float, float]],
    ) -> None:
        self.costs = costs
        self.steps, rounding = round_costs([cost / width for cost in costs])
        # Probabilities and numbers together: (values, bins, 2).
        after = np.ones((len(probabilities[-1]), 1, 2))
        tails = []
        for step, probability in zip(self.steps[::-1], probabilities[::-1], strict=True):
            tails.append(after[:, :, 0])
            before = np.zeros((step.shape[0], after.shape[1] + int(step.max()), 2))
            weights = np.stack((probability, np.ones(len(probability))), axis=1)[:, None] * after
            for own, shifts in zip(before, step.tolist(), strict=True):
                for shift, weight in zip(shifts, weights, strict=True):
                    place = own[shift : shift + len(weight)]
                    place += weight
            after = before
        low, high = ends(costs)
        super().__init__(constant, width, (constant + low, constant + high), rounding, abs(constant), after[0].T)
        # Of targets of equal size, nearly all windows have as many bins.
        self._choices = {
            bins: [
                _Choice.tabulate(*position, bins)
                for position in zip(self.steps, probabilities, tails[::-1], strict=True)
            ]
            for bins in {_count_bins(self.windows(*target)[0]) for target in targets}
        }

    @property
    def numbers_a_draw(self) -> int:
        """See the base class."""
        return len(self.steps)

    def lost(self, window: tuple[int, int]) -> float:
        """See the base class. Sums from both ends are rounded to some 1e-16 of what is beside the window."""
        probabilities = self.totals[0]
        return 1e-8 * min(probabilities[: max(window[0], 0)].sum(), probabilities[max(window[1] + 1, 0) :].sum())

    def draw(self, window: tuple[int, int], numbers: np.ndarray) -> np.ndarray:
        """See the base class: one value after the other along the chain. The window is as wide as a target's."""
        values = np.empty(numbers.shape, dtype=np.int64)
        for start in range(0, values.shape[1], _CHUNK):
            chunk = slice(start, start + _CHUNK)
            low = np.full(values[:, chunk].shape[1], window[0])
            previous = np.zeros_like(low)
            for position, choice in enumerate(self._choices[_count_bins(window)]):
                previous, low = choice.draw(previous, low, numbers[position, chunk])
                values[position, chunk] = previous
        return values.T


class ChainSampler(BinnedSampler):
    """For spaces whose cost is, at each resolution, a sum over neighbouring groups: a chain of layers.

    Costs are rounded to bins, and the distribution of their sum follows by dynamic programming along the chain. A
    draw goes forward through it, see :class:`BinnedSampler`.

    Few subnets are listed by :class:`ChainListing`. So every target is known to be reachable or not, and :meth:`count`
    is exact below 10,000. (A target with more than 100,000 subnets within rounding of its edges, and few inside, cannot
    be listed; then a draw that hits it shows that it is reachable, and the count is a lower bound.)

    Raises:
        ConfigError: The cost is not a chain, or it cannot be told whether a target is reachable: its subnets cannot be
            listed, and no draw hits it.
    """

    def _distribute(self) -> list[_Chain]:
        layer = layer_off_chain(self.cost)
        if layer is not None:
            raise ConfigError(
                f"the search space has {self.space.size} subnets, too many to enumerate, and its cost is no chain: "
                f"a layer depends on {list(layer)}; search fewer groups or choices"
            )
        self._unit = _exact_unit([table for _, table in self.cost.terms])
        self._listings: dict[int, ChainListing] = {}
        width = self.constraint.step / BINS_A_STEP
        outers = range(len(self._outer_probabilities))
        targets = [self._edges(index) for index in range(len(self.constraint.targets))]
        self._chains = [
            _Chain(*self._along(outer, self.cost.scale), self._probabilities, width, targets) for outer in outers
        ]
        return self._chains

    def _along(self, outer: int, scale: float) -> tuple[float, list[np.ndarray]]:
        """The constant and the steps of the chain at one resolution."""
        sizes = [1, *map(len, self._probabilities)]
        steps = [np.zeros(shape) for shape in pairwise(sizes)]
        constant = 0.0
        for positions, table in self._terms(outer, scale):
            if positions:
                steps[positions[-1]] += table
            else:
                constant += float(table)
        return constant, steps

    def _list(self, index: int, outer: int) -> np.ndarray | None:
        chain = self._chains[outer]
        if not chain.mass(chain.windows(*self._edges(index))[0])[1]:
            return np.zeros((0, len(self.space)), dtype=np.int64)

        def accepts(rows: np.ndarray) -> np.ndarray:
            return self._belong(index, self._subnets(rows, outer))

        for finer in _FINER:
            rows = self._listing(outer, finer).find(chain.interval(*self._edges(index), finer), accepts)
            if rows is not None:
                return self._subnets(rows, outer)
        return None

    def _listing(self, outer: int, finer: int) -> ChainListing:
        """The listing of one resolution. One of finer bins is not kept: it is large and seldom needed."""
        if finer == 1 and outer in self._listings:
            return self._listings[outer]
        chain, units = self._chains[outer], None
        if self._unit is not None:
            units = [np.rint(step / self._unit).astype(np.int64) for step in self._along(outer, 1.0)[1]]
        listing = ChainListing([cost * finer / chain.width for cost in chain.costs], units, MOST_LISTED)
        if finer == 1:
            self._listings[outer] = listing
        return listing


def _count_bins(window: tuple[int, int]) -> int:
    return window[1] - window[0] + 1


def layer_off_chain(cost: AdditiveCost) -> tuple[str, ...] | None:
    """The names of groups that share a table of the cost without being neighbours; None if the cost is a chain.

    Neighbours are two groups in the space's order that have a choice and, between them, only groups that have none;
    the resolution does not count.
    """
    space = cost.space
    widths = [i for i, d in enumerate(space.dimensions) if d.kind != "resolution" and len(d.values) > 1]
    for columns, _ in cost.terms:
        positions = [widths.index(c) for c in columns if c in widths]
        if positions and positions[-1] - positions[0] > 1:
            return tuple(space.names[c] for c in columns)
    return None


def _exact_unit(tables: list[np.ndarray]) -> float | None:
    """A power of two that divides all entries, so that their sums are exact in any order; None if there is none."""
    most = sum(float(np.abs(table).max()) for table in tables)
    for exponent in range(53):
        unit = 2.0**-exponent
        if most / unit >= 2**53:
            return None
        if all((table / unit == np.rint(table / unit)).all() for table in tables):
            return unit
    return None
