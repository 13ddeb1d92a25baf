"""Drawing subnets from the search space conditional on a target."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from pss_razor.core.errors import ConfigError, UnreachableTargetError
from pss_razor.core.space.constraint import Constraint
from pss_razor.core.space.cost import AdditiveCost

# Draws made for each distinct subnet that is wanted; where a target has few subnets, draws repeat.
_DRAWS_A_SUBNET = 32
# Draws by which the subnets of a target are counted where several combinations are one subnet.
_TRIALS = 1024


class ConditionalSampler(ABC):
    """Draws from the search space's own distribution conditional on a target, exactly, for every target.

    Subclasses say how; :func:`build_conditional_sampler` takes the one that fits the space.

    Args:
        cost: Resource of every subnet, in the constraint's unit.
        constraint: The targets.

    Attributes:
        space: The search space.
        resource_range: Smallest and largest resource in the space.

    Raises:
        UnreachableTargetError: No target at all can be reached.
    """

    resource_range: tuple[float, float]

    def __init__(self, cost: AdditiveCost, constraint: Constraint) -> None:
        self.space = cost.space
        self.cost = cost
        self.constraint = constraint
        self._prepare()
        self._counts = [self._count_distinct(index) for index in range(len(constraint.targets))]
        if not self.reachable_targets:
            raise UnreachableTargetError(
                f"no target of {constraint.metric} from {constraint.first:g} to {constraint.last:g} can be reached: "
                f"the search space covers {self.resource_range[0]:.6g} to {self.resource_range[1]:.6g}; choose "
                "targets there"
            )

    @property
    def reachable_targets(self) -> tuple[float, ...]:
        """The targets that at least one subnet belongs to."""
        return tuple(t for t, count in zip(self.constraint.targets, self._counts, strict=True) if count)

    @property
    def unreachable_targets(self) -> tuple[float, ...]:
        """The targets that no subnet belongs to."""
        return tuple(t for t, count in zip(self.constraint.targets, self._counts, strict=True) if not count)

    def count(self, target: float) -> int:
        """Number of distinct subnets that belong to ``target``; a lower bound where they are not listed."""
        return self._counts[self._index(target)]

    def belongs(self, target: float, indices: np.ndarray) -> np.ndarray:
        """Whether each of the subnets of value indices int64 (N, D) belongs to ``target``: bool (N,)."""
        return self.constraint.nearest_target_index(self.cost(indices)) == self._index(target)

    def draw_many(self, target: float, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Independent draws conditional on a target.

        Args:
            target: One of :attr:`reachable_targets`.
            count: Number of draws N.
            generator: Source of randomness.

        Returns:
            Value indices int64 (N, D) and resources float64 (N,).

        Raises:
            UnreachableTargetError: ``target`` is not a target or no subnet has it; names the nearest miss.
        """
        index = self._index(target)
        if not self._counts[index]:
            low, high = self.resource_range
            nearest = min(self.reachable_targets, key=lambda reachable: abs(reachable - target))
            raise UnreachableTargetError(
                f"no subnet has {self.constraint.metric} = {target}: the search space covers {low:.6g} to {high:.6g}; "
                f"the nearest target with subnets is {nearest}"
            )
        indices, resources = self._draw(index, count, generator)
        return self.space.canonical(indices), resources

    def draw_distinct(self, target: float, count: int, generator: np.random.Generator) -> np.ndarray:
        """The first distinct ones of independent draws conditional on a target.

        Args:
            target: One of :attr:`reachable_targets`.
            count: Number of subnets N; fewer where so many draws find no more.
            generator: Source of randomness.

        Returns:
            Value indices int64 (N, D).

        Raises:
            UnreachableTargetError: See :meth:`draw_many`.
        """
        indices, _ = self.draw_many(target, _DRAWS_A_SUBNET * count, generator)
        return np.array(list(dict.fromkeys(map(tuple, indices.tolist())))[:count], dtype=np.int64)

    def _count_distinct(self, index: int) -> int:
        """Subnets of a target; where several combinations are one, at least those that some draws find."""
        count = self._count(index)
        if not count or not self.space.has_equal_combinations:
            return count
        drawn, _ = self._draw(index, _TRIALS, np.random.default_rng(0))
        return min(count, len(np.unique(self.space.canonical(drawn), axis=0)))

    @abstractmethod
    def _prepare(self) -> None:
        """Set up, and set :attr:`resource_range`."""

    @abstractmethod
    def _count(self, index: int) -> int:
        """Number of combinations that belong to a target's index; a lower bound where they are not listed."""

    @abstractmethod
    def _draw(self, index: int, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`draw_many`, for the index of a reachable target."""

    def _index(self, target: float) -> int:
        try:
            return self.constraint.targets.index(target)
        except ValueError:
            raise UnreachableTargetError(
                f"{target} is not a target of {self.constraint.metric}; the targets are {list(self.constraint.targets)}"
            ) from None


class ListSampler(ConditionalSampler):
    """Draws from a list of subnets with given probabilities.

    The draws of a target are look-ups in its subnets' cumulative probabilities, so that rare targets cost no more
    than others and nothing is rejected.

    Args:
        cost: Resource of every subnet, in the constraint's unit.
        constraint: The targets.
        indices: Value indices of the subnets, distinct combinations, int64 (N, D).
        probabilities: Probability of each, float64 (N,).
    """

    def __init__(
        self, cost: AdditiveCost, constraint: Constraint, indices: np.ndarray, probabilities: np.ndarray
    ) -> None:
        self._indices = indices
        self._probabilities = probabilities
        if cost.space.has_equal_combinations:
            self._indices, subnet_of = np.unique(cost.space.canonical(indices), axis=0, return_inverse=True)
            self._probabilities = np.bincount(subnet_of.ravel(), weights=probabilities)
        super().__init__(cost, constraint)

    def members(self, target: float) -> np.ndarray:
        """The subnets of a target in the order of the list, value indices int64 (N, D)."""
        return self._members[self._index(target)]

    def _prepare(self) -> None:
        resources = self.cost(self._indices)
        self.resource_range = (float(resources.min()), float(resources.max()))
        target_of = self.constraint.nearest_target_index(resources)
        rows_of_targets = [np.flatnonzero(target_of == index) for index in range(len(self.constraint.targets))]
        self._members = [self._indices[rows] for rows in rows_of_targets]
        self._resources = [resources[rows] for rows in rows_of_targets]
        self._cumulative = [np.cumsum(self._probabilities[rows]) for rows in rows_of_targets]

    def _count(self, index: int) -> int:
        return len(self._members[index])

    def _count_distinct(self, index: int) -> int:
        return self._count(index)

    def _draw(self, index: int, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        cumulative = self._cumulative[index]
        rows = np.searchsorted(cumulative[:-1], generator.random(count) * cumulative[-1], side="right")
        return self._members[index][rows], self._resources[index][rows]


class EnumeratedSampler(ListSampler):
    """Draws from a space that is small enough to be enumerated.

    Args:
        cost: Resource of every subnet, in the constraint's unit.
        constraint: The targets.

    Raises:
        ConfigError: The space is too large.
    """

    # A million subnets enumerate in about a second and 100 MB.
    max_size = 1_000_000

    def __init__(self, cost: AdditiveCost, constraint: Constraint) -> None:
        space = cost.space
        if space.size > self.max_size:
            raise ConfigError(f"the search space has {space.size} subnets, more than {self.max_size} to enumerate")
        indices = space.enumerate()
        super().__init__(cost, constraint, indices, space.probabilities(indices))
