"""Which subnet is trained next: from the search space conditional on a target, or from the prioritized pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pss_razor.core.errors import CheckpointError
from pss_razor.core.pss.pool import PrioritizedPools
from pss_razor.core.sampling.build_conditional_sampler import build_conditional_sampler
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler
from pss_razor.core.sampling.score import Score
from pss_razor.core.sampling.subnet_sampler import Draw, SubnetSampler
from pss_razor.core.space.constraint import Constraint
from pss_razor.core.space.cost import AdditiveCost
from pss_razor.core.space.subnet import Subnet


class PrioritizedSubnetSampler(SubnetSampler):
    """Draws from prioritized pools that learn from the scores (PSS-Net, section 3).

    Args:
        costs: Metric -> resource of every subnet.
        constraints: The constraints, one for each metric.
        pool_size: Most entries of a pool. If a target has fewer distinct subnets, its pool holds that number, so that
            it can be full.
        score_momentum: Weight of the old score when a subnet is visited again.
        seed: Seed of the draws; the same on all ranks.

    Attributes:
        pools: (metric, target) -> pool.
        step: Draws so far; of a checkpoint of version 0.2, those since it was loaded.
    """

    _state_keys = ("pools", "generator")

    def __init__(
        self,
        costs: Mapping[str, AdditiveCost],
        constraints: Sequence[Constraint],
        pool_size: int = 50,
        score_momentum: float = 0.9,
        seed: int = 0,
    ) -> None:
        super().__init__(costs, constraints, seed)
        self._keys = self.reachable_targets
        capacities = {
            (m, target): min(pool_size, self.conditional_samplers[m].count(target)) for m, target in self._keys
        }
        self.pools = PrioritizedPools(capacities, score_momentum)
        self.step = 0

    def _build_conditional_sampler(self, cost: AdditiveCost, constraint: Constraint) -> ConditionalSampler:
        return build_conditional_sampler(cost, constraint)

    def draw(self, p_explore: float = 1.0, temperature: float = 1.0) -> Draw:
        """Draw for the next iteration.

        All pools are equally likely, which picks a constraint in proportion to its number of targets and then one of
        its targets uniformly.

        Args:
            p_explore: Probability of a new subnet from the search space.
            temperature: Temperature of the softmax over the pool's scores.
        """
        self.step += 1
        metric, target = self._keys[self.generator.integers(len(self._keys))]
        pool = self.pools[metric, target]
        explore = self.generator.random() < p_explore or not pool.is_full
        if explore:
            indices, resources = self.conditional_samplers[metric].draw_many(target, 1, self.generator)
            subnet, resource = self.space.decode(indices[0]), float(resources[0])
        else:
            subnet = pool.draw(temperature, self.generator)
            resource = pool[subnet].resource
        return Draw(subnet, explore, metric, target, resource)

    def update(self, draw: Draw, score: Score) -> None:
        """Tell the pool how its subnet did on the batch (minus the cross-entropy)."""
        assert draw.metric is not None and draw.target is not None and draw.resource is not None
        self.pools[draw.metric, draw.target].update(draw.subnet, score, draw.resource, self.step)

    def candidates(self, top_k: int) -> dict[tuple[str, float], list[tuple[Subnet, float | None]]]:
        """Each pool's ``top_k`` best by score; fewer where a pool has fewer."""
        return {key: [(entry.subnet, entry.score) for entry in pool.best(top_k)] for key, pool in self.pools.items()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able pools, their turnover, the number of draws, and random state."""
        return {
            "pools": self.pools.state_dict(self.space),
            "turnover": self.pools.turnover_state(),
            "step": self.step,
            **super().state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            CheckpointError: The pools are of another space or other constraints, or the state is damaged.
        """
        super().load_state_dict(state)
        self.pools.load_state_dict(self.space, state["pools"])
        if "turnover" in state:  # version 0.2 saved neither this nor the step
            self.pools.load_turnover_state(state["turnover"])
        self.step = state.get("step", 0)
        if type(self.step) is not int or self.step < 0:
            raise CheckpointError(f"the number of draws in the checkpoint is {self.step!r:.50}")
