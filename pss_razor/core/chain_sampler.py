"""Conditional sampling in spaces that are too large to enumerate."""

from __future__ import annotations

import numpy as np

from pss_razor.core.conditional_sampler import ConditionalSampler
from pss_razor.core.errors import ConfigError, UnreachableTargetError

# Bins that the distance between two targets is divided into; more bins reject fewer draws and take longer to set up.
_BINS_A_STEP = 64
# At the rarest target of MobileNetV1 about one draw in six is accepted; this many rounds leave no reasonable doubt.
_MAX_ROUNDS = 200


class _Chain:
    """The search space at one resolution: widths x_1 … x_n whose costs add up along the chain.

    ``steps[i][x_{i-1}, x_i]`` is the cost, in whole bins, of going on to ``x_i``. ``tail(i, x, low, high)`` is the
    probability that the steps after ``x_i = x`` add up to between ``low`` and ``high`` bins, by dynamic programming.
    """

    def __init__(self, steps: list[np.ndarray], probabilities: list[np.ndarray]) -> None:
        self.steps = steps
        self.probabilities = probabilities
        tails = [np.ones((len(probabilities[-1]), 1))]
        for step, probability in zip(steps[:0:-1], probabilities[:0:-1], strict=True):
            after = tails[-1]
            before = np.zeros((step.shape[0], after.shape[1] + int(step.max())))
            for x, y in np.ndindex(*step.shape):
                shift = step[x, y]
                before[x, shift : shift + after.shape[1]] += probability[y] * after[y]
            tails.append(before)
        # Sums from both ends: a difference of sums near one would lose the tails' small probabilities.
        pad = [(0, 0), (1, 1)]
        self._below = [np.cumsum(np.pad(tail, pad), axis=1)[:, :-1] for tail in reversed(tails)]
        self._above = [np.cumsum(np.pad(tail, pad)[:, ::-1], axis=1)[:, ::-1][:, 1:] for tail in reversed(tails)]

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

    Raises:
        ConfigError: The cost is not a chain.
    """

    def _prepare(self) -> None:
        space = self.space
        # Groups of one value add nothing but a constant.
        widths = [i for i, d in enumerate(space.dimensions) if d.kind != "resolution" and len(d.values) > 1]
        outer = [i for i, d in enumerate(space.dimensions) if d.kind == "resolution"]
        self._widths, self._outer = widths, outer[0] if outer else None
        place = {column: position for position, column in enumerate(widths)}
        outer_values = range(space.shape[self._outer]) if self._outer is not None else range(1)
        exact: list[tuple[float, list[np.ndarray]]] = []
        for value in outer_values:
            constant = 0.0
            steps = [
                np.zeros((space.shape[widths[max(i - 1, 0)]] if i else 1, space.shape[c])) for i, c in enumerate(widths)
            ]
            for columns, table in self.cost.terms:
                fixed = tuple(value if c == self._outer else slice(None) if c in place else 0 for c in columns)
                part = np.asarray(table[fixed] * self.cost.scale)
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
            exact.append((constant, steps))
        bounds = [self._bounds(constant, steps) for constant, steps in exact]
        self.resource_range = (min(low for low, _ in bounds), max(high for _, high in bounds))
        self._bin = self.constraint.step / _BINS_A_STEP
        probabilities = [np.asarray(space.dimensions[c].probabilities) for c in widths]
        self._constants = [constant for constant, _ in exact]
        self._chains = [
            _Chain([np.rint(step / self._bin).astype(np.int64) for step in steps], probabilities) for _, steps in exact
        ]

    @staticmethod
    def _bounds(constant: float, steps: list[np.ndarray]) -> tuple[float, float]:
        """Smallest and largest cost of a chain."""
        low = high = np.zeros(steps[0].shape[0])
        for step in steps:
            low, high = (low[:, None] + step).min(axis=0), (high[:, None] + step).max(axis=0)
        return constant + float(low.min()), constant + float(high.max())

    def _window(self, index: int, chain: int) -> tuple[int, int]:
        """The bins that hold every subnet of a target: each step is rounded by half a bin at most."""
        target, half = self.constraint.targets[index], self.constraint.step / 2
        slack = len(self._widths) / 2 + 1
        low = (target - half - self._constants[chain]) / self._bin - slack
        high = (target + half - self._constants[chain]) / self._bin + slack
        return int(np.floor(low)), int(np.ceil(high))

    def _count(self, index: int) -> int:
        low, high = self.resource_range
        target, half = self.constraint.targets[index], self.constraint.step / 2
        if target + half < low or target - half > high:
            return 0
        # How many is only asked to bound a pool: distinct subnets among many draws are enough.
        indices, _ = self._attempt(index, 2048, np.random.default_rng(0), rounds=8)
        return len(np.unique(indices, axis=0))

    def _draw(self, index: int, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        indices, resources = self._attempt(index, count, generator, _MAX_ROUNDS)
        if len(indices) < count:
            target = self.constraint.targets[index]
            raise UnreachableTargetError(
                f"{self.constraint.metric} = {target}: only {len(indices)} of {count} draws hit it in {_MAX_ROUNDS} "
                f"rounds; the space covers {self.resource_range[0]:.6g} to {self.resource_range[1]:.6g}. Leave the "
                "target out"
            )
        return indices, resources

    def _attempt(
        self, index: int, count: int, generator: np.random.Generator, rounds: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Up to ``count`` draws in at most ``rounds`` rounds."""
        windows = [self._window(index, chain) for chain in range(len(self._chains))]
        outer = np.ones(1) if self._outer is None else np.asarray(self.space.dimensions[self._outer].probabilities)
        masses = outer * [
            c.weights(0, np.zeros(1, int), np.array([low]), np.array([high])).sum()
            for c, (low, high) in zip(self._chains, windows, strict=True)
        ]
        found, costs, missing = [], [], count
        if masses.sum() > 0:
            for _ in range(rounds):
                chains = generator.choice(len(masses), size=missing + missing // 4 + 8, p=masses / masses.sum())
                indices = np.zeros((len(chains), len(self.space)), dtype=np.int64)
                for chain in np.unique(chains):
                    rows = np.flatnonzero(chains == chain)
                    if self._outer is not None:
                        indices[rows, self._outer] = chain
                    indices[rows[:, None], self._widths] = self._walk(chain, windows[chain], len(rows), generator)
                resources = self.cost(indices)
                hit = np.flatnonzero(self.constraint.nearest_target_index(resources) == index)[:missing]
                found.append(indices[hit])
                costs.append(resources[hit])
                missing -= len(hit)
                if not missing:
                    break
        if not found:
            return np.zeros((0, len(self.space)), dtype=np.int64), np.zeros(0)
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
