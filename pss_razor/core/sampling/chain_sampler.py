"""Conditional sampling in spaces that are too large to enumerate."""

from __future__ import annotations

import math

import numpy as np

from pss_razor.core.errors import ConfigError, UnreachableTargetError
from pss_razor.core.sampling.chain_listing import ChainListing, ends, round_costs
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler, ListSampler

# Bins that the distance between two targets is divided into; more bins reject fewer draws and take longer to set up.
_BINS_A_STEP = 64
# Each bin is split into so many, one number after the other, until a target's subnets can be listed.
_FINER = (1, 8, 64)
# A target with at least so many subnets, and at least this share of draws accepted, is drawn from without a list.
_FEW = 10_000
_LEAST_ACCEPTED = 1e-3
# Most combinations that are kept to list the subnets of a target.
_MOST_LISTED = 100_000
# Most draws in a round, and most rounds in a row without an accepted draw.
_MOST_DRAWS = 2**15
_MAX_ROUNDS = 50
# Accepted draws that give a lower bound on the number of subnets, where they cannot be listed.
_TRIALS = 256


class _Chain:
    """The search space at one resolution: widths x_1 … x_n whose costs add up along the chain.

    ``steps[i][x_{i-1}, x_i]`` is the cost, in whole bins, of going on to ``x_i``. ``tail(i, x, low, high)`` is the
    probability that the steps after ``x_i = x`` add up to between ``low`` and ``high`` bins, by dynamic programming.

    Args:
        constant: Cost that all combinations have in common.
        costs: Cost of each step.
        probabilities: Probabilities of the values at each position.
        width: Width of a bin, in the unit of the costs.

    Attributes:
        bounds: Smallest and largest cost.
        totals: Probability and number of the combinations of each binned cost (2, bins), without the constant.
    """

    def __init__(self, constant: float, costs: list[np.ndarray], probabilities: list[np.ndarray], width: float) -> None:
        self.constant = constant
        self.costs = costs
        self.width = width
        self.bounds = tuple(constant + end for end in ends(costs))
        self.steps, self._rounding = round_costs([cost / width for cost in costs])
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
        self.totals = after[0]
        # Sums from both ends: a difference of sums near one would lose the tails' small probabilities.
        pad = [(0, 0), (1, 1)]
        self._below = [np.cumsum(np.pad(tail, pad), axis=1)[:, :-1] for tail in reversed(tails)]
        self._above = [np.cumsum(np.pad(tail, pad)[:, ::-1], axis=1)[:, ::-1][:, 1:] for tail in reversed(tails)]

    def interval(self, low: float, high: float, finer: int = 1) -> tuple[float, float, float]:
        """Costs from ``low`` to ``high`` in bins without the constant, and how far rounding may move them.

        Args:
            low: Least cost.
            high: Most cost.
            finer: How many bins take the place of one.
        """
        first, last = ((end - self.constant) * finer / self.width for end in (low, high))
        # The same cost is added up in another order elsewhere, and compared after more rounding.
        margin = 1e-13 * max(abs(low), abs(high), abs(self.constant)) * finer / self.width
        return first, last, margin

    def windows(self, low: float, high: float) -> tuple[tuple[int, int], tuple[int, int]]:
        """The bins that hold every combination that costs from ``low`` to ``high``, and those that hold no other."""
        first, last, margin = self.interval(low, high)
        least, most = self._rounding
        widest = math.ceil(first - margin - most), math.floor(last + margin - least)
        surest = math.ceil(first + margin - least), math.floor(last - margin - most)
        return widest, surest

    def mass(self, window: tuple[int, int]) -> np.ndarray:
        """Probability and number of the combinations in a window of bins, (2,)."""
        return self.totals[:, max(window[0], 0) : max(window[1] + 1, 0)].sum(axis=1)

    def mass_beside(self, window: tuple[int, int]) -> float:
        """The smaller one of the probabilities below and above a window."""
        probabilities = self.totals[0]
        return min(probabilities[: max(window[0], 0)].sum(), probabilities[max(window[1] + 1, 0) :].sum())

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


class ChainSampler(ConditionalSampler):
    """For spaces whose cost is, at each resolution, a sum over neighbouring groups: a chain of layers.

    Costs are rounded to bins, and the distribution of their sum follows by dynamic programming along the chain. A
    draw goes forward through it, conditional on a window of bins that is wide enough to hold every subnet of the
    target in spite of the rounding; what then really is outside the target is rejected. The accepted draws have the
    exact distribution, since inside the window draws follow the space's own.

    The bins that lie inside a target whatever the rounding tell how many subnets it has at least. If these are few, or
    too many draws would be rejected, the target's subnets are listed, see :class:`ChainListing`, and drawn from the
    list. So every target is known to be reachable or not, and :meth:`count` is exact below 10,000. (A target with more
    than 100,000 subnets within rounding of its edges, and few inside, cannot be listed; then a draw that hits it shows
    that it is reachable, and the count is a lower bound.)

    Raises:
        ConfigError: The cost is not a chain, or it cannot be told whether a target is reachable: its subnets cannot be
            listed, and no draw hits it.
    """

    def _prepare(self) -> None:
        space = self.space
        # Groups of one value add nothing but a constant.
        widths = [i for i, d in enumerate(space.dimensions) if d.kind != "resolution" and len(d.values) > 1]
        outer = [i for i, d in enumerate(space.dimensions) if d.kind == "resolution"]
        self._widths, self._outer = widths, outer[0] if outer else None
        outer_values = range(space.shape[self._outer]) if self._outer is not None else range(1)
        probabilities = [np.asarray(space.dimensions[c].probabilities) for c in widths]
        width = self.constraint.step / _BINS_A_STEP
        self._chains = [_Chain(*self._along(value, self.cost.scale), probabilities, width) for value in outer_values]
        self._outer_probabilities = (
            np.ones(1) if self._outer is None else np.asarray(space.dimensions[self._outer].probabilities)
        )
        bounds = [chain.bounds for chain in self._chains]
        self.resource_range = (min(low for low, _ in bounds), max(high for _, high in bounds))
        self._unit = _exact_unit([table for _, table in self.cost.terms])
        self._listings: dict[int, ChainListing] = {}
        self._listed: dict[int, ListSampler] = {}

    def _along(self, outer: int, scale: float) -> tuple[float, list[np.ndarray]]:
        """The constant and the steps of the chain at one resolution."""
        space, widths = self.space, self._widths
        place = {column: position for position, column in enumerate(widths)}
        constant = 0.0
        steps = [
            np.zeros((space.shape[widths[max(i - 1, 0)]] if i else 1, space.shape[c])) for i, c in enumerate(widths)
        ]
        for columns, table in self.cost.terms:
            fixed = tuple(outer if c == self._outer else slice(None) if c in place else 0 for c in columns)
            part = np.asarray(table[fixed] * scale)
            positions = [place[c] for c in columns if c in place]
            if not positions:
                constant += float(part)
            elif len(positions) == 1:
                steps[positions[0]] += part
            elif len(positions) == 2 and positions[1] == positions[0] + 1:
                steps[positions[1]] += part
            else:
                names = [space.names[c] for c in columns]
                raise ConfigError(
                    f"the search space has {space.size} subnets, too many to enumerate, and its cost is no chain: "
                    f"a layer depends on {names}; search fewer groups or choices"
                )
        return constant, steps

    def _edges(self, index: int) -> tuple[float, float]:
        """Where a target begins and ends."""
        middle = self.constraint.first + index * self.constraint.step
        return middle - self.constraint.step / 2, middle + self.constraint.step / 2

    def _count(self, index: int) -> int:
        possible, sure, beside = np.zeros(2), np.zeros(2), 0.0
        for chain, probability in zip(self._chains, self._outer_probabilities, strict=True):
            widest, surest = chain.windows(*self._edges(index))
            possible += chain.mass(widest) * (probability, 1.0)
            sure += chain.mass(surest) * (probability, 1.0)
            beside += chain.mass_beside(widest) * probability
        if not possible[1]:
            return 0
        # Sums from both ends are rounded to some 1e-16 of what is beside the window.
        drawable = sure[0] > _LEAST_ACCEPTED * possible[0] and possible[0] > 1e-8 * beside
        if sure[1] >= _FEW and drawable:
            return int(min(sure[1], 2.0**53))
        found = [self._list(index, value) for value in range(len(self._chains))]
        listed = [members for members in found if members is not None]
        count = sum(map(len, listed))
        if len(listed) == len(found) and count <= _MOST_LISTED:
            members = np.concatenate(listed)
            if count:
                probabilities = self.space.probabilities(members)
                self._listed[index] = ListSampler(self.cost, self.constraint, members, probabilities)
            return count
        hits, _ = self._attempt(index, _TRIALS, np.random.default_rng(0))
        if not len(hits):
            raise ConfigError(
                f"more than {_MOST_LISTED} subnets have about the edges of {self.constraint.metric} = "
                f"{self.constraint.targets[index]}, and draws hit none between them; choose another first or step"
            )
        return max(count, int(min(sure[1], 2.0**53)), len(np.unique(hits, axis=0)))

    def _list(self, index: int, outer: int) -> np.ndarray | None:
        """Value indices (N, D) of a target's subnets of one resolution; None if they cannot be listed."""
        chain = self._chains[outer]
        if not chain.mass(chain.windows(*self._edges(index))[0])[1]:
            return np.zeros((0, len(self.space)), dtype=np.int64)

        def accepts(rows: np.ndarray) -> np.ndarray:
            return self.constraint.nearest_target_index(self.cost(self._subnets(rows, outer))) == index

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
        listing = ChainListing([cost * finer / chain.width for cost in chain.costs], units, _MOST_LISTED)
        if finer == 1:
            self._listings[outer] = listing
        return listing

    def _subnets(self, rows: np.ndarray, outer: int) -> np.ndarray:
        """Value indices of the space (N, D) from those along the chain of one resolution (N, n)."""
        indices = np.zeros((len(rows), len(self.space)), dtype=np.int64)
        indices[:, self._widths] = rows
        if self._outer is not None:
            indices[:, self._outer] = outer
        return indices

    def _draw(self, index: int, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if index in self._listed:
            return self._listed[index].draw_many(self.constraint.targets[index], count, generator)
        indices, resources = self._attempt(index, count, generator)
        if len(indices) < count:
            target = self.constraint.targets[index]
            raise UnreachableTargetError(
                f"{self.constraint.metric} = {target}: only {len(indices)} of {count} draws hit it, and none in "
                f"{_MAX_ROUNDS} rounds; the space covers {self.resource_range[0]:.6g} to {self.resource_range[1]:.6g}. "
                "Leave the target out"
            )
        return indices, resources

    def _attempt(self, index: int, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Up to ``count`` draws; fewer after many rounds of which none hit the target."""
        windows = [chain.windows(*self._edges(index))[0] for chain in self._chains]
        masses = self._outer_probabilities * [
            chain.mass(window)[0] for chain, window in zip(self._chains, windows, strict=True)
        ]
        found: list[np.ndarray] = [np.zeros((0, len(self.space)), dtype=np.int64)]
        costs: list[np.ndarray] = [np.zeros(0)]
        missing, drawn, failures = count, 0, 0
        while missing and masses.sum() > 0 and failures < _MAX_ROUNDS:
            # As many as are needed at the rate of hits so far; half a hit is assumed where there is none yet.
            accepted = max(count - missing, 0.5) / drawn if drawn else 1.0
            size = int(min(1.25 * missing / accepted + 8, _MOST_DRAWS))
            chains = generator.choice(len(masses), size=size, p=masses / masses.sum())
            indices = np.empty((size, len(self.space)), dtype=np.int64)
            for chain in np.unique(chains).tolist():
                rows = np.flatnonzero(chains == chain)
                indices[rows] = self._subnets(self._walk(chain, windows[chain], len(rows), generator), chain)
            resources = self.cost(indices)
            hit = np.flatnonzero(self.constraint.nearest_target_index(resources) == index)[:missing]
            found.append(indices[hit])
            costs.append(resources[hit])
            missing, drawn = missing - len(hit), drawn + size
            failures = 0 if len(hit) else failures + 1
        return np.concatenate(found), np.concatenate(costs)

    def _walk(self, chain: int, window: tuple[int, int], count: int, generator: np.random.Generator) -> np.ndarray:
        """Draw ``count`` times the values along a chain whose binned cost ends in the window."""
        low, high = (np.full(count, edge) for edge in window)
        previous = np.zeros(count, dtype=np.int64)
        values = np.empty((count, len(self._widths)), dtype=np.int64)
        for position in range(len(self._widths)):
            cumulative = np.cumsum(self._chains[chain].weights(position, previous, low, high), axis=1)
            thresholds = generator.random(count) * cumulative[:, -1]
            chosen = np.minimum((cumulative <= thresholds[:, None]).sum(axis=1), cumulative.shape[1] - 1)
            step = self._chains[chain].steps[position][previous, chosen]
            low, high, previous = low - step, high - step, chosen
            values[:, position] = chosen
        return values


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
