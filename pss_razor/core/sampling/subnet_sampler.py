"""Which subnet is trained next, and which are evaluated in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pss_razor.core.errors import CheckpointError, ConfigError
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler
from pss_razor.core.sampling.score import Score
from pss_razor.core.space.constraint import Constraint, check_metrics
from pss_razor.core.space.cost import AdditiveCost
from pss_razor.core.space.search_space import Dimension
from pss_razor.core.space.subnet import Subnet


@dataclass(frozen=True)
class Draw:
    """A subnet to train on the next batch, and the pool it was drawn for, if there are pools.

    Args:
        subnet: The subnet.
        explored: Whether it is from the search space instead of a pool.
        metric: Metric of the pool; None without pools.
        target: Target of the pool.
        resource: The subnet's cost in the metric's unit.
    """

    subnet: Subnet
    explored: bool = True
    metric: str | None = None
    target: float | None = None
    resource: float | None = None


class SubnetSampler(ABC):
    """Chooses the subnet of every training iteration, and the subnets to evaluate for every target.

    The one thing in which the method and its baselines differ.

    Args:
        costs: Metric -> resource of every subnet.
        constraints: The constraints, one for each metric.
        seed: Seed of the draws; the same on all ranks.

    Attributes:
        costs: Metric -> resource of every subnet.
        conditional_samplers: Metric -> sampler of the subnets of each of its targets.
        space: The search space.
        generator: Source of the draws.

    Raises:
        ConfigError: There is no constraint, a metric has two, or a metric has no cost.
        UnreachableTargetError: No target of some metric can be reached.
    """

    _state_keys: tuple[str, ...] = ("generator",)

    def __init__(self, costs: Mapping[str, AdditiveCost], constraints: Sequence[Constraint], seed: int = 0) -> None:
        check_metrics([constraint.metric for constraint in constraints], costs)
        self.costs = costs
        self.space = costs[constraints[0].metric].space
        self.conditional_samplers = {c.metric: self._build_conditional_sampler(costs[c.metric], c) for c in constraints}
        self.generator = np.random.default_rng(seed)

    @property
    def reachable_targets(self) -> list[tuple[str, float]]:
        """The (metric, target) that at least one subnet belongs to, in the order of the constraints."""
        return [(metric, target) for metric, s in self.conditional_samplers.items() for target in s.reachable_targets]

    @abstractmethod
    def _build_conditional_sampler(self, cost: AdditiveCost, constraint: Constraint) -> ConditionalSampler:
        """The subnets of each target, among those that :meth:`draw` can return."""

    @abstractmethod
    def draw(self) -> Draw:
        """Draw for the next iteration."""

    @property
    def resolutions(self) -> Dimension:
        """The search group of the resolution.

        Raises:
            ConfigError: There is none.
        """
        for dimension in self.space.dimensions:
            if dimension.kind == "resolution":
                return dimension
        raise ConfigError(
            "smallest_resolution = 'any': the supernet has one resolution alone; set model.architecture.resolutions, "
            "or leave smallest_resolution out"
        )

    def draw_narrowest(self) -> Subnet:
        """The smallest subnet, but at any resolution, each as likely as the space has it; raises as `resolutions`."""
        group = self.resolutions
        resolution = group.values[self.generator.choice(len(group.values), p=group.probabilities)]
        return Subnet({**self.space.smallest, group.name: resolution})

    @abstractmethod
    def update(self, draw: Draw, score: Score) -> None:
        """Learn a drawn subnet's score on its batch (minus the cross-entropy), at once or when it is next needed.

        Raises:
            TrainingDivergedError: The score, or an earlier one that is read now, is not finite.
        """

    @abstractmethod
    def candidates(self, top_k: int) -> dict[tuple[str, float], list[tuple[Subnet, float | None]]]:
        """What an evaluation tries: for each (metric, target) up to ``top_k`` distinct subnets, best guess first.

        Does not change the draws to come. The second of each pair is the subnet's score, None if it has none.
        """

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state, from which the draws continue."""
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            CheckpointError: It is the state of another kind of sampler, search space, or of other constraints.
        """
        missing = [key for key in self._state_keys if key not in state]
        if missing:
            raise CheckpointError(f"the sampler's state misses {missing}; it holds {sorted(state)}")
        try:
            self.generator.bit_generator.state = state["generator"]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"the random state of the sampler is damaged: {error}") from error
