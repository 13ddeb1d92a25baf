"""Conditional sampling in spaces that are too large to enumerate, along a chain of layers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pss_razor.core.errors import ConfigError
from pss_razor.core.sampling.binned_sampler import BINS_A_STEP, MOST_LISTED, BinnedDistribution, BinnedSampler
from pss_razor.core.sampling.chain_listing import ChainListing, ends, round_costs
from pss_razor.core.space.cost import AdditiveCost

# Each bin is split into so many, one number after the other, until a target's subnets can be listed.
_FINER = (1, 8, 64)


class _Chain(BinnedDistribution):
    """The search space at one resolution: widths x_1 … x_n whose costs add up along the chain.

    ``steps[i][x_{i-1}, x_i]`` is the cost, in whole bins, of going on to ``x_i``. ``tail(i, x, low, high)`` is the
    probability that the steps after ``x_i = x`` add up to between ``low`` and ``high`` bins, by dynamic programming.

    Args:
        constant: Cost that all combinations have in common.
        costs: Cost of each step.
        probabilities: Probabilities of the values at each position.
        width: Width of a bin, in the unit of the costs.
    """

    def __init__(self, constant: float, costs: list[np.ndarray], probabilities: list[np.ndarray], width: float) -> None:
        self.costs = costs
        self.steps, rounding = round_costs([cost / width for cost in costs])
        self.probabilities = probabilities
        # Probabilities and numbers together: (values, 2, bins).
        after = np.ones((len(probabilities[-1]), 2, 1))
        tails = []
        for step, probability in zip(self.steps[::-1], probabilities[::-1], strict=True):
            tails.append(after[:, 0])
            before = np.zeros((step.shape[0], 2, after.shape[2] + int(step.max())))
            weights = np.stack((probability, np.ones(len(probability))), axis=1)[:, :, None] * after
            for x, y in np.ndindex(*step.shape):
                shift = step[x, y]
                before[x, :, shift : shift + after.shape[2]] += weights[y]
            after = before
        low, high = ends(costs)
        super().__init__(constant, width, (constant + low, constant + high), rounding, abs(constant), after[0])
        # Sums from both ends: a difference of sums near one would lose the tails' small probabilities.
        pad = [(0, 0), (1, 1)]
        self._below = [np.cumsum(np.pad(tail, pad), axis=1)[:, :-1] for tail in reversed(tails)]
        self._above = [np.cumsum(np.pad(tail, pad)[:, ::-1], axis=1)[:, ::-1][:, 1:] for tail in reversed(tails)]

    def lost(self, window: tuple[int, int]) -> float:
        """See the base class. Sums from both ends are rounded to some 1e-16 of what is beside the window."""
        probabilities = self.totals[0]
        return 1e-8 * min(probabilities[: max(window[0], 0)].sum(), probabilities[max(window[1] + 1, 0) :].sum())

    def draw(self, window: tuple[int, int], count: int, generator: np.random.Generator) -> np.ndarray:
        """See the base class: one value after the other along the chain."""
        low, high = (np.full(count, edge) for edge in window)
        previous = np.zeros(count, dtype=np.int64)
        values = np.empty((count, len(self.steps)), dtype=np.int64)
        for position, steps in enumerate(self.steps):
            cumulative = np.cumsum(self.weights(position, previous, low, high), axis=1)
            thresholds = generator.random(count) * cumulative[:, -1]
            chosen = np.minimum((cumulative <= thresholds[:, None]).sum(axis=1), cumulative.shape[1] - 1)
            step = steps[previous, chosen]
            low, high, previous = low - step, high - step, chosen
            values[:, position] = chosen
        return values

    def tail(self, position: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Probability of a tail within [low, high] bins, for every value of the position: (N, values) in and out."""
        below, above = self._below[position], self._above[position]
        bins = below.shape[1] - 1
        first, last = np.clip(low, 0, bins), np.clip(high + 1, 0, bins)
        values = np.arange(len(below))
        from_below = below[values, last] - below[values, first]
        from_above = above[values, first] - above[values, last]
        # Whichever end is nearer has the smaller, more precise sums.
        chosen = np.where(below[values, last] < above[values, first], from_below, from_above)
        return np.where(last > first, np.maximum(chosen, 0.0), 0.0)

    def weights(self, position: int, previous: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Probability of each value and of a tail that ends in the window, (N, values)."""
        step = self.steps[position][previous]
        return self.probabilities[position] * self.tail(position, low[:, None] - step, high[:, None] - step)


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
        self._chains = [_Chain(*self._along(outer, self.cost.scale), self._probabilities, width) for outer in outers]
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
