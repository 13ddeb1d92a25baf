"""Drawing subnets whose resources lie in given ranges."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pss_razor.core.errors import ConfigError, UnreachableTargetError
from pss_razor.core.sampling.build_conditional_sampler import build_conditional_sampler
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler
from pss_razor.core.space.constraint import Constraint
from pss_razor.core.space.cost import AdditiveCost

# Draws that are checked at once, and how often: a million subnets that miss a second range leave no reasonable doubt.
_BATCH = 4096
_MAX_ROUNDS = 256
# A range narrower than this part of the space's costs is drawn from a window that wide: finer bins fill the memory.
_NARROWEST = 1 / 256


class RangeSampler:
    """Draws from the search space's own distribution conditional on ranges of resources, exactly.

    The range of one metric becomes the single target of a constraint, of which exact draws are made. With several
    metrics, draws are made for the metric whose draws most often meet the other ranges, and those that miss one are
    rejected.

    Args:
        costs: Metric -> resource of every subnet.
        ranges: Metric -> (least, most) resource, both included; at least one.

    Attributes:
        space: The search space.

    Raises:
        ConfigError: There is no range, one is of a metric without a cost, or its bounds are not finite and in order.
        UnreachableTargetError: No subnet is in a range.
    """

    def __init__(self, costs: Mapping[str, AdditiveCost], ranges: Mapping[str, tuple[float, float]]) -> None:
        if not ranges:
            raise ConfigError("no range is given; give at least one, e.g. flops=(0, 330)")
        for metric, (low, high) in ranges.items():
            if metric not in costs:
                raise ConfigError(
                    f"a range of {metric!r} is asked for, which is not measured; measured are {sorted(costs)}"
                )
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ConfigError(f"the range {metric} = ({low}, {high}) must be two numbers, the smaller one first")
        self.costs = costs
        self.ranges = ranges
        self.space = costs[next(iter(ranges))].space
        self._samplers = {metric: self._build_sampler(metric) for metric in ranges}
        self._leading = next(iter(ranges))
        if len(ranges) > 1:
            hits = {m: self.accepts(self._draw(m, _BATCH, np.random.default_rng(0))).sum() for m in ranges}
            self._leading = max(hits, key=hits.__getitem__)

    def resources(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Metric -> resources float64 (N,) of subnets, value indices (N, D)."""
        return {metric: cost(indices) for metric, cost in self.costs.items()}

    def accepts(self, indices: np.ndarray) -> np.ndarray:
        """Whether each subnet, value indices (N, D), is in all ranges: bool (N,)."""
        accepted = np.ones(len(indices), dtype=bool)
        for metric, (low, high) in self.ranges.items():
            resources = self.costs[metric](indices)
            accepted &= (resources >= low) & (resources <= high)
        return accepted

    def draw_many(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Independent draws, value indices int64 (count, D).

        Raises:
            UnreachableTargetError: The ranges exclude each other, as far as many draws tell.
        """
        found: list[np.ndarray] = [np.zeros((0, len(self.space)), dtype=np.int64)]
        missing, tried = count, 0
        for attempt in range(_MAX_ROUNDS):
            if not missing:
                break
            size = _BATCH if attempt else 2 * missing
            indices = self._draw(self._leading, size, generator)
            tried += size
            found.append(indices[self.accepts(indices)][:missing])
            missing -= len(found[-1])
        if missing:
            resources = self.resources(indices)
            met = "; ".join(
                f"{metric} = {low:.6g} to {high:.6g} is wanted, and {values.min():.6g} to {values.max():.6g} was drawn"
                for metric, (low, high) in self.ranges.items()
                for values in [resources[metric]]
            )
            raise UnreachableTargetError(
                f"{count - missing} of {count} subnets in all ranges were found in {tried} draws that meet the range "
                f"of {self._leading} ({met}); widen a range"
            )
        return np.concatenate(found)

    def draw_distinct(
        self, count: int, generator: np.random.Generator, known: set[tuple[int, ...]] | None = None
    ) -> np.ndarray:
        """Up to ``count`` draws that differ from each other, value indices int64 (N, D).

        Fewer than ``count`` if eight batches of draws in a row bring no new subnet.

        Args:
            count: How many.
            generator: Source of randomness.
            known: Rows of indices that are not drawn again; the new ones are added.
        """
        known = set() if known is None else known
        rows: list[tuple[int, ...]] = []
        failures = 0
        while len(rows) < count and failures < 8:
            before = len(rows)
            for row in map(tuple, self.draw_many(max(64, 2 * count), generator).tolist()):
                if row not in known and len(rows) < count:
                    known.add(row)
                    rows.append(row)
            failures = 0 if len(rows) > before else failures + 1
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.space))

    def _build_sampler(self, metric: str) -> ConditionalSampler:
        """The sampler of one range: of a constraint with a single target, whose interval holds the range."""
        cost = self.costs[metric]
        # The bounds of the space: exact where no term is over two groups, else wide enough.
        least = sum(table.min() for _, table in cost.terms) * cost.scale
        most = sum(table.max() for _, table in cost.terms) * cost.scale
        low, high = max(self.ranges[metric][0], least), min(self.ranges[metric][1], most)
        width = max(high - low, (most - least) * _NARROWEST, 1e-6)
        middle = (low + high) / 2
        try:
            if low > high + 1e-9:
                raise UnreachableTargetError(f"the search space covers {least:.6g} to {most:.6g}")
            return build_conditional_sampler(cost, Constraint(metric, middle, middle, width * (1 + 1e-6)))
        except UnreachableTargetError as error:
            wanted = "{:.6g} to {:.6g}".format(*self.ranges[metric])
            raise UnreachableTargetError(
                f"no subnet has {metric} from {wanted}: the search space covers {least:.6g} to {most:.6g}"
            ) from error

    def _draw(self, metric: str, count: int, generator: np.random.Generator) -> np.ndarray:
        sampler = self._samplers[metric]
        return sampler.draw_many(sampler.reachable_targets[0], count, generator)[0]
