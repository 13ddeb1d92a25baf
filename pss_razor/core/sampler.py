"""Drawing subnets: conditional on a target from the search space, or from the prioritized pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pss_razor.core.constraint import Constraint
from pss_razor.core.cost import AdditiveCost
from pss_razor.core.errors import CheckpointError, ConfigError, UnreachableTargetError
from pss_razor.core.pool import PrioritizedPools
from pss_razor.core.subnet import Subnet

# A space of a million subnets enumerates in about a second and 100 MB.
MAX_ENUMERATED_SUBNETS = 1_000_000


class ConditionalSampler:
    """Draws from the search space's own distribution conditional on a target, exactly.

    The space is enumerated once; the draws of a target are look-ups in its cumulative probabilities, so that rare
    targets cost no more than others and nothing is rejected.

    Args:
        cost: Resource of every subnet, in the constraint's unit.
        constraint: The targets.

    Raises:
        ConfigError: The space is too large to enumerate.
        UnreachableTargetError: No target at all can be reached.
    """

    def __init__(self, cost: AdditiveCost, constraint: Constraint) -> None:
        space = cost.space
        if space.size > MAX_ENUMERATED_SUBNETS:
            raise ConfigError(
                f"the search space has {space.size} subnets; exact sampling enumerates at most "
                f"{MAX_ENUMERATED_SUBNETS}. Use fewer choices a group (a larger divisor, fewer resolutions)"
            )
        self.space = space
        self.constraint = constraint
        indices = space.enumerate()
        resources = cost(indices)
        self.resource_range = (float(resources.min()), float(resources.max()))
        target_of = constraint.nearest_target_index(resources)
        probabilities = space.probabilities(indices)
        self._members: list[np.ndarray] = []
        self._resources: list[np.ndarray] = []
        self._cumulative: list[np.ndarray] = []
        for index in range(len(constraint.targets)):
            rows = np.flatnonzero(target_of == index)
            self._members.append(indices[rows])
            self._resources.append(resources[rows])
            self._cumulative.append(np.cumsum(probabilities[rows]))
        if not self.reachable_targets:
            raise UnreachableTargetError(
                f"no target of {constraint.metric} from {constraint.first:g} to {constraint.last:g} can be reached: "
                f"the search space covers {self.resource_range[0]:.6g} to {self.resource_range[1]:.6g}; choose "
                "targets there"
            )

    @property
    def reachable_targets(self) -> tuple[float, ...]:
        """The targets that at least one subnet belongs to."""
        return tuple(t for t, rows in zip(self.constraint.targets, self._members, strict=True) if len(rows))

    @property
    def unreachable_targets(self) -> tuple[float, ...]:
        """The targets that no subnet belongs to."""
        return tuple(t for t, rows in zip(self.constraint.targets, self._members, strict=True) if not len(rows))

    def count(self, target: float) -> int:
        """Number of distinct subnets that belong to ``target``."""
        return len(self._members[self._index(target)])

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
        cumulative = self._cumulative[index]
        if not len(cumulative):
            low, high = self.resource_range
            nearest = min(self.reachable_targets, key=lambda reachable: abs(reachable - target))
            raise UnreachableTargetError(
                f"no subnet has {self.constraint.metric} = {target}: the search space covers {low:.6g} to {high:.6g}; "
                f"the nearest target with subnets is {nearest}"
            )
        # The product can round up to the last cumulative value, for which the right side would be past the end.
        rows = np.searchsorted(cumulative[:-1], generator.random(count) * cumulative[-1], side="right")
        return self._members[index][rows], self._resources[index][rows]

    def _index(self, target: float) -> int:
        try:
            return self.constraint.targets.index(target)
        except ValueError:
            raise UnreachableTargetError(
                f"{target} is not a target of {self.constraint.metric}; the targets are {list(self.constraint.targets)}"
            ) from None


@dataclass(frozen=True)
class Draw:
    """A subnet to train on the next batch, and the pool it was drawn for.

    Args:
        metric: Metric of the pool.
        target: Target of the pool.
        subnet: The subnet.
        resource: Its cost in the metric's unit.
        explored: Whether it is from the search space instead of the pool.
    """

    metric: str
    target: float
    subnet: Subnet
    resource: float
    explored: bool


class PrioritizedSubnetSampler:
    """Chooses the subnet of every training iteration and learns from its score (PSS-Net, section 3).

    Args:
        costs: Metric -> resource of every subnet.
        constraints: The constraints, one for each metric.
        pool_size: Most entries of a pool. A target with fewer distinct subnets has a pool of that size, so that it
            can be full.
        score_momentum: Weight of the old score when a subnet is visited again.
        seed: Seed of the draws; the same on all ranks.
    """

    def __init__(
        self,
        costs: Mapping[str, AdditiveCost],
        constraints: Sequence[Constraint],
        pool_size: int = 50,
        score_momentum: float = 0.9,
        seed: int = 0,
    ) -> None:
        metrics = [c.metric for c in constraints]
        if not metrics:
            raise ConfigError(
                "there are no constraints; give at least one: metric='flops', first=70, last=300, step=10"
            )
        for metric in metrics:
            if metrics.count(metric) > 1:
                raise ConfigError(f"two constraints on {metric}; join them into one")
            if metric not in costs:
                raise ConfigError(f"no estimator for the constraint's metric {metric!r}; there are {sorted(costs)}")
        self.samplers = {c.metric: ConditionalSampler(costs[c.metric], c) for c in constraints}
        self.costs = costs
        self.space = next(iter(self.samplers.values())).space
        capacities = {
            (metric, target): min(pool_size, sampler.count(target))
            for metric, sampler in self.samplers.items()
            for target in sampler.reachable_targets
        }
        self.pools = PrioritizedPools(capacities, score_momentum)
        self._keys = list(self.pools)
        self.generator = np.random.default_rng(seed)

    def draw(self, p_explore: float, temperature: float) -> Draw:
        """Draw for the next iteration.

        All pools are equally likely, which picks a constraint in proportion to its number of targets and then one of
        its targets uniformly.

        Args:
            p_explore: Probability of a new subnet from the search space.
            temperature: Of the softmax over the pool's scores.
        """
        metric, target = self._keys[self.generator.integers(len(self._keys))]
        pool = self.pools[metric, target]
        explore = self.generator.random() < p_explore or not pool.is_full
        if explore:
            indices, resources = self.samplers[metric].draw_many(target, 1, self.generator)
            return Draw(metric, target, self.space.decode(indices[0]), float(resources[0]), explored=True)
        subnet = pool.draw(temperature, self.generator)
        resource = float(self.costs[metric](self.space.encode([subnet]))[0])
        return Draw(metric, target, subnet, resource, explored=False)

    def update(self, draw: Draw, score: float) -> None:
        """Tell the pool how its subnet did on the batch (minus the cross-entropy)."""
        self.pools[draw.metric, draw.target].update(draw.subnet, score, draw.resource)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able pools and random state."""
        return {"pools": self.pools.state_dict(self.space), "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            CheckpointError: The pools are of another space or other constraints.
        """
        missing = [key for key in ("pools", "generator") if key not in state]
        if missing:
            raise CheckpointError(f"the sampler's state misses {missing}; it holds {sorted(state)}")
        self.pools.load_state_dict(self.space, state["pools"])
        self.generator.bit_generator.state = state["generator"]
