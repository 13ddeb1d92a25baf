"""What conditional samplers share that know the distribution of the cost over bins."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np

from pss_razor.core.errors import ConfigError, UnreachableTargetError
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler, ListSampler

# Bins that the distance between two targets is divided into; more bins reject fewer draws and take longer to set up.
BINS_A_STEP = 64
# Most combinations that are kept to list the subnets of a target.
MOST_LISTED = 100_000
# A target with at least so many subnets, and at least this share of draws accepted, is drawn from without a list.
FEW = 10_000
_LEAST_ACCEPTED = 1e-3
# Most draws in a round, and most rounds in a row without an accepted draw.
_MOST_DRAWS = 2**15
_MAX_ROUNDS = 50
# Fewest draws that are made together; so few take about as long as one.
_FEW_DRAWS = 16
# Accepted draws that give a lower bound on the number of subnets, where they cannot be listed.
_TRIALS = 256
# Columns from which on adding up rows is faster than numpy's running sums, where each sum waits for the one before.
_MANY_COLUMNS = 128


class BinnedDistribution:
    """The cost at one resolution, in whole bins above a constant, and its distribution.

    Args:
        constant: Cost that all combinations have in common.
        width: Width of a bin, in the unit of the costs.
        bounds: Smallest and largest cost.
        rounding: The least and the most of a combination's exact minus its rounded cost, in bins.
        magnitude: Size of the largest parts of a cost; sums of them are off by this times some 1e-16.
        totals: Probability and number of the combinations of each binned cost (2, bins), without the constant.
    """

    def __init__(
        self,
        constant: float,
        width: float,
        bounds: tuple[float, float],
        rounding: tuple[float, float],
        magnitude: float,
        totals: np.ndarray,
    ) -> None:
        self.constant = constant
        self.width = width
        self.bounds = bounds
        self.rounding = rounding
        self.magnitude = magnitude
        self.totals = totals

    def interval(self, low: float, high: float, finer: int = 1) -> tuple[float, float, float]:
        """Costs from ``low`` to ``high`` in bins without the constant, and how far rounding may move them.

        Args:
            low: Least cost.
            high: Most cost.
            finer: How many bins take the place of one.
        """
        first, last = ((end - self.constant) * finer / self.width for end in (low, high))
        # The same cost is added up in another order elsewhere, and compared after more rounding.
        margin = 1e-13 * max(abs(low), abs(high), self.magnitude) * finer / self.width
        return first, last, margin

    def windows(self, low: float, high: float) -> tuple[tuple[int, int], tuple[int, int]]:
        """The bins that hold every combination that costs from ``low`` to ``high``, and those that hold no other."""
        first, last, margin = self.interval(low, high)
        least, most = self.rounding
        widest = math.ceil(first - margin - most), math.floor(last + margin - least)
        surest = math.ceil(first + margin - least), math.floor(last - margin - most)
        return widest, surest

    def mass(self, window: tuple[int, int]) -> np.ndarray:
        """Probability and number of the combinations in a window of bins, (2,)."""
        return self.totals[:, max(window[0], 0) : max(window[1] + 1, 0)].sum(axis=1)

    def lost(self, window: tuple[int, int]) -> float:
        """A probability that a window's must be well above for draws from it to be exact."""
        return 0.0

    @property
    @abstractmethod
    def numbers_a_draw(self) -> int:
        """Number of random numbers that a draw takes."""

    @abstractmethod
    def draw(self, window: tuple[int, int], numbers: np.ndarray) -> np.ndarray:
        """Draws conditional on a binned cost in the window.

        Args:
            window: The first and the last bin.
            numbers: Random numbers between 0 and 1, float64 (:attr:`numbers_a_draw`, N). A draw depends on its own
                column alone.

        Returns:
            The values, int64 (N, n).
        """


def cumulate(weights: np.ndarray) -> None:
    """Replace weights (choices, N) by their running sums."""
    if weights.shape[1] < _MANY_COLUMNS:
        np.add.accumulate(weights, axis=0, out=weights)
    else:  # the same sums, many at a time
        for before, own in pairwise(weights):
            own += before


class _Proposal(NamedTuple):
    """At each resolution, the window of bins about a target, and which share of the draws are there."""

    windows: list[tuple[int, int]]
    shares: np.ndarray


class BinnedSampler(ConditionalSampler):
    """Draws by the distribution of the cost over bins, at each resolution, and rejects by the real cost.

    A draw is conditional on a window of bins that is wide enough to hold every subnet of the target in spite of the
    rounding; what then really is outside the target is rejected. The accepted draws have the exact distribution, since
    inside the window draws follow the space's own.

    The bins that lie inside a target whatever the rounding tell how many subnets it has at least. If these are few, or
    too many draws would be rejected, the target's subnets are listed where they can be, and drawn from the list.

    Raises:
        ConfigError: It cannot be told whether a target is reachable: its subnets cannot be listed, and no draw hits it.
    """

    def _prepare(self) -> None:
        space = self.space
        # Groups of one value add nothing but a constant.
        self._widths = [i for i, d in enumerate(space.dimensions) if d.kind != "resolution" and len(d.values) > 1]
        outer = [i for i, d in enumerate(space.dimensions) if d.kind == "resolution"]
        # A resolution that makes no difference to the cost is a group like any other.
        idle = [i for i in outer if all(i not in columns for columns, _ in self.cost.terms)]
        self._outer = outer[0] if outer != idle else None
        self._widths += idle
        self._outer_probabilities = (
            np.ones(1) if self._outer is None else np.asarray(space.dimensions[self._outer].probabilities)
        )
        self._probabilities = [np.asarray(space.dimensions[c].probabilities) for c in self._widths]
        self._distributions = self._distribute()
        bounds = [distribution.bounds for distribution in self._distributions]
        self.resource_range = (min(low for low, _ in bounds), max(high for _, high in bounds))
        self._listed: dict[int, ListSampler] = {}
        self._proposals: dict[int, _Proposal] = {}

    @abstractmethod
    def _distribute(self) -> Sequence[BinnedDistribution]:
        """The distribution at each resolution."""

    @abstractmethod
    def _list(self, index: int, outer: int) -> np.ndarray | None:
        """Value indices (N, D) of a target's subnets of one resolution; None if they cannot be listed."""

    def _around(self, index: int) -> Sequence[BinnedDistribution]:
        """The distribution at each resolution that a target's draws are from."""
        return self._distributions

    def _terms(self, outer: int, scale: float) -> list[tuple[tuple[int, ...], np.ndarray]]:
        """The cost's tables at one resolution, each with the positions of its axes among :attr:`_widths`."""
        return [self._at(outer, columns, table * scale) for columns, table in self.cost.terms]

    def _at(self, outer: int, columns: Sequence[int], table: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
        """A table over columns of the space at one resolution, with the positions of its axes among :attr:`_widths`."""
        place = {column: position for position, column in enumerate(self._widths)}
        fixed = tuple(outer if c == self._outer else slice(None) if c in place else 0 for c in columns)
        return tuple(place[c] for c in columns if c in place), np.asarray(table[fixed])

    def _edges(self, index: int) -> tuple[float, float]:
        """Where a target begins and ends."""
        middle = self.constraint.first + index * self.constraint.step
        return middle - self.constraint.step / 2, middle + self.constraint.step / 2

    def _count(self, index: int) -> int:
        possible, sure, lost = np.zeros(2), np.zeros(2), 0.0
        for distribution, probability in zip(self._around(index), self._outer_probabilities, strict=True):
            widest, surest = distribution.windows(*self._edges(index))
            possible += distribution.mass(widest) * (probability, 1.0)
            sure += distribution.mass(surest) * (probability, 1.0)
            lost += distribution.lost(widest) * probability
        if not possible[1]:
            return 0
        drawable = sure[0] > _LEAST_ACCEPTED * possible[0] and possible[0] > lost
        if sure[1] >= FEW and drawable:
            return int(min(sure[1], 2.0**53))
        found = [self._list(index, outer) for outer in range(len(self._distributions))]
        listed = [members for members in found if members is not None]
        count = sum(map(len, listed))
        if len(listed) == len(found) and count <= MOST_LISTED:
            members = np.concatenate(listed)
            if count:
                probabilities = self.space.probabilities(members)
                self._listed[index] = ListSampler(self.cost, self.constraint, members, probabilities)
            return count
        hits, _ = self._attempt(index, _TRIALS, np.random.default_rng(0))
        if not len(hits):
            raise ConfigError(
                f"more than {MOST_LISTED} subnets have about the edges of {self.constraint.metric} = "
                f"{self.constraint.targets[index]}, and draws hit none between them; choose another first or step"
            )
        return max(count, int(min(sure[1], 2.0**53)), len(np.unique(hits, axis=0)))

    def _count_distinct(self, index: int) -> int:
        count = super()._count_distinct(index)
        listed = self._listed.get(index)
        return count if listed is None else listed.count(self.constraint.targets[index])

    def _subnets(self, rows: np.ndarray, outer: int) -> np.ndarray:
        """Value indices of the space (N, D) from those of the groups with a choice, at one resolution (N, n)."""
        indices = np.zeros((len(rows), len(self.space)), dtype=np.int64)
        indices[:, self._widths] = rows
        if self._outer is not None:
            indices[:, self._outer] = outer
        return indices

    def _belong(self, index: int, subnets: np.ndarray) -> np.ndarray:
        """Which subnets (N, D) belong to a target, bool (N,)."""
        return self.constraint.nearest_target_index(self.cost(subnets)) == index

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
        found: list[np.ndarray] = [np.zeros((0, len(self.space)), dtype=np.int64)]
        costs: list[np.ndarray] = [np.zeros(0)]
        missing, drawn, failures = count, 0, 0
        possible = self._proposal(index).shares.any()
        while missing and possible and failures < _MAX_ROUNDS:
            # As many as are needed at the rate of hits so far; half a hit is assumed where there is none yet.
            accepted = max(count - missing, 0.5) / drawn if drawn else 1.0
            size = int(min(1.25 * missing / accepted + 8, _MOST_DRAWS))
            drawn, failures = drawn + size, failures + 1
            for indices in self._propose(index, size, missing, generator):
                resources = self.cost(indices)
                hit = np.flatnonzero(self.constraint.nearest_target_index(resources) == index)[:missing]
                found.append(indices[hit])
                costs.append(resources[hit])
                missing, failures = missing - len(hit), 0 if len(hit) else failures
                if not missing:
                    break
        return np.concatenate(found), np.concatenate(costs)

    def _propose(self, index: int, size: int, wanted: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Draws near a target, ``size`` in all, value indices (N, D): first about as many as are wanted, then others.

        The random numbers of all of them are taken at once: how many are looked at does not matter to later draws.
        """
        around, (windows, shares) = self._around(index), self._proposal(index)
        outers = generator.choice(len(shares), size=size, p=shares)
        numbers = {
            outer: generator.random((around[outer].numbers_a_draw, number))
            for outer, number in enumerate(np.bincount(outers).tolist())
            if number
        }
        done = 0
        while done < size:
            block = outers[done : done + max(done, wanted, _FEW_DRAWS)]
            indices = np.empty((len(block), len(self.space)), dtype=np.int64)
            rows_of = {outer: np.flatnonzero(block == outer) for outer in dict.fromkeys(block.tolist())}
            ends = [*(rows[0] for rows in islice(rows_of.values(), 1, None)), len(block)]
            given = 0
            for (outer, rows), end in zip(rows_of.items(), ends, strict=True):
                values = around[outer].draw(windows[outer], numbers[outer][:, : len(rows)])
                numbers[outer] = numbers[outer][:, len(rows) :]
                indices[rows] = self._subnets(values, outer)
                # All before the first one of another resolution are known: they may do.
                if end - given >= wanted or end == len(block):
                    yield indices[given:end]
                    given = end
            done += len(block)

    def _proposal(self, index: int) -> _Proposal:
        """What draws near a target are made of; worked out once."""
        if index not in self._proposals:
            around = self._around(index)
            windows = [distribution.windows(*self._edges(index))[0] for distribution in around]
            masses = self._outer_probabilities * [d.mass(w)[0] for d, w in zip(around, windows, strict=True)]
            self._proposals[index] = _Proposal(windows, masses / (masses.sum() or 1.0))
        return self._proposals[index]
