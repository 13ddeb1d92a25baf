"""Which subnet is trained next: from the search space conditional on a target, or from the prioritized pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pss_razor.core.chain_sampler import ChainSampler
from pss_razor.core.conditional_sampler import ConditionalSampler, EnumeratedSampler
from pss_razor.core.constraint import Constraint, check_metrics
from pss_razor.core.cost import AdditiveCost
from pss_razor.core.errors import CheckpointError
from pss_razor.core.pool import PrioritizedPools
from pss_razor.core.subnet import Subnet


def build_conditional_sampler(cost: AdditiveCost, constraint: Constraint) -> ConditionalSampler:
    """The sampler that fits the space: enumeration where it is small, else dynamic programming along the layers.

    Raises:
        ConfigError: The space is too large to enumerate and its cost is not a chain.
        UnreachableTargetError: No target at all can be reached.
    """
    small = cost.space.size <= EnumeratedSampler.max_size
    return EnumeratedSampler(cost, constraint) if small else ChainSampler(cost, constraint)


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
        check_metrics([constraint.metric for constraint in constraints], costs)
        self.samplers = {c.metric: build_conditional_sampler(costs[c.metric], c) for c in constraints}
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
