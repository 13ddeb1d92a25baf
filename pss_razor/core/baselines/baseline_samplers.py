"""The samplers that the paper compares with: no pools, the search space as it is or a shared width multiplier."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pss_razor.core.errors import CheckpointError
from pss_razor.core.sampling.build_conditional_sampler import build_conditional_sampler
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler, ListSampler
from pss_razor.core.sampling.score import Score, check_score
from pss_razor.core.sampling.shared_multiplier import shared_multiplier_subnets
from pss_razor.core.sampling.subnet_sampler import Draw, SubnetSampler
from pss_razor.core.space.constraint import Constraint
from pss_razor.core.space.cost import AdditiveCost
from pss_razor.core.space.subnet import Subnet

# Scores that are still to be read: those of a step or more, so that none is waited for.
_UNREAD = 8


class BaselineSubnetSampler(SubnetSampler):
    """Draws that do not depend on targets or scores.

    Attributes:
        method: Its name in configs and checkpoints.
    """

    method: str
    _state_keys = ("method", "generator")

    def __init__(self, costs: Mapping[str, AdditiveCost], constraints: Sequence[Constraint], seed: int = 0) -> None:
        super().__init__(costs, constraints, seed)
        self._unread: deque[tuple[Draw, Callable[[], float]]] = deque()

    def update(self, draw: Draw, score: Score) -> None:
        """Learn nothing, but check that the score is finite; a callable one some updates later, or in state_dict."""
        if callable(score):
            self._unread.append((draw, score))
            self._check(at_most=_UNREAD)
        else:
            check_score(draw.subnet, score)

    def _check(self, at_most: int) -> None:
        """Check the oldest scores until at most so many are unread."""
        while len(self._unread) > at_most:
            draw, score = self._unread.popleft()
            check_score(draw.subnet, score())

    def state_dict(self) -> dict[str, Any]:
        """JSON-able method and random state."""
        self._check(at_most=0)
        return {"method": self.method, **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            CheckpointError: It is the state of another method.
        """
        super().load_state_dict(state)
        if state["method"] != self.method:
            raise CheckpointError(
                f"the checkpoint was trained by the baseline {state['method']!r}, the config has {self.method!r}; use "
                "the config that the checkpoint was trained with"
            )


class UniformSubnetSampler(BaselineSubnetSampler):
    """Draws from the search space's own distribution; the method without its pools."""

    method = "uniform"

    def _build_conditional_sampler(self, cost: AdditiveCost, constraint: Constraint) -> ConditionalSampler:
        return build_conditional_sampler(cost, constraint)

    def draw(self) -> Draw:
        """Draw for the next iteration: every dimension independently."""
        indices = [self.generator.choice(len(d.values), p=d.probabilities) for d in self.space.dimensions]
        return Draw(self.space.decode(np.array(indices)))

    def candidates(self, top_k: int) -> dict[tuple[str, float], list[tuple[Subnet, float | None]]]:
        """Distinct draws conditional on each target, the same at every call."""
        chosen: dict[tuple[str, float], list[tuple[Subnet, float | None]]] = {}
        for metric, target in self.reachable_targets:
            drawn = self.conditional_samplers[metric].draw_distinct(target, top_k, np.random.default_rng(0))
            chosen[metric, target] = [(self.space.decode(row), None) for row in drawn]
        return chosen


class SharedMultiplierSampler(BaselineSubnetSampler):
    """Draws from the subnets whose widths follow one multiplier; see :func:`shared_multiplier_subnets`.

    Targets that none of these subnets belongs to are left out, like those that no subnet of the space belongs to.
    """

    _all_resolutions: bool

    def __init__(self, costs: Mapping[str, AdditiveCost], constraints: Sequence[Constraint], seed: int = 0) -> None:
        space = next(iter(costs.values())).space
        self.indices, self.probabilities = shared_multiplier_subnets(space, self._all_resolutions)
        super().__init__(costs, constraints, seed)

    def _build_conditional_sampler(self, cost: AdditiveCost, constraint: Constraint) -> ListSampler:
        return ListSampler(cost, constraint, self.indices, self.probabilities)

    def draw(self) -> Draw:
        """Draw for the next iteration: one multiplier, and the resolution."""
        row = self.generator.choice(len(self.indices), p=self.probabilities)
        return Draw(self.space.decode(self.indices[row]))

    def candidates(self, top_k: int) -> dict[tuple[str, float], list[tuple[Subnet, float | None]]]:
        """Members of each target, evenly spread from its low to its high resolutions; all where they are few."""
        chosen: dict[tuple[str, float], list[tuple[Subnet, float | None]]] = {}
        for metric, target in self.reachable_targets:
            sampler = self.conditional_samplers[metric]
            assert isinstance(sampler, ListSampler)
            members = sampler.members(target)
            count = min(top_k, len(members))
            rows = [(2 * i + 1) * len(members) // (2 * count) for i in range(count)]  # the middles of equal parts
            chosen[metric, target] = [(self.space.decode(members[row]), None) for row in rows]
        return chosen


class USNetSubnetSampler(SharedMultiplierSampler):
    """Universally slimmable networks (US-Net, arXiv 1903.05134): one width multiplier, at the largest resolution.

    The smallest subnet of a training step is the search space's, so give the space a single resolution.
    """

    method = "usnet"
    _all_resolutions = False


class MutualNetSubnetSampler(SharedMultiplierSampler):
    """MutualNet (arXiv 1909.12978): one width multiplier, and the resolution, independently."""

    method = "mutualnet"
    _all_resolutions = True


BASELINE_SAMPLERS: dict[str, type[BaselineSubnetSampler]] = {
    cls.method: cls for cls in (USNetSubnetSampler, MutualNetSubnetSampler, UniformSubnetSampler)
}
