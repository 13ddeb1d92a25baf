"""The samplers that the paper compares with: no pools, the search space as it is or a shared width multiplier."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pss_razor.core.errors import CheckpointError, ConfigError
from pss_razor.core.sampling.build_conditional_sampler import build_conditional_sampler
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler, ListSampler
from pss_razor.core.sampling.score import Score, check_score
from pss_razor.core.sampling.subnet_sampler import Draw, SubnetSampler
from pss_razor.core.space.constraint import Constraint
from pss_razor.core.space.cost import AdditiveCost
from pss_razor.core.space.search_space import SearchSpace
from pss_razor.core.space.subnet import Subnet

# Breakpoints nearer than this are one: 1/3 is not the same float after different sums.
_TOLERANCE = 1e-9


def shared_multiplier_subnets(space: SearchSpace, all_resolutions: bool) -> tuple[np.ndarray, np.ndarray]:
    """The subnets whose widths follow one multiplier for all layers, and their exact probabilities.

    Every width takes the value at the same quantile u of its own distribution, u uniform in [0, 1]. Where all widths
    have one interval of multipliers, that is the network of the multiplier ``low + u * (high - low)``. The network
    changes only at the breakpoints of a width's cumulative probabilities: each interval between them gives one network.

    Args:
        space: The search space.
        all_resolutions: Whether the resolution is drawn, independently, from its distribution; else it is the largest.

    Returns:
        Value indices int64 (N, D) of the distinct subnets, by resolution and then by width, and probabilities
        float64 (N,), sum 1.

    Raises:
        ConfigError: The space searches something other than widths and the resolution.
    """
    others = [d.name for d in space.dimensions if d.kind not in ("channels", "resolution")]
    if others:
        raise ConfigError(
            f"the search groups {others} are no widths: one multiplier for all layers says nothing of them; use the "
            "baseline 'uniform', or search widths and the resolution only"
        )
    cumulative: dict[int, np.ndarray] = {
        column: np.cumsum(np.asarray(dimension.probabilities))[:-1]
        for column, dimension in enumerate(space.dimensions)
        if dimension.kind == "channels"
    }
    breakpoints = [0.0]
    for point in sorted(itertools.chain(*cumulative.values(), [1.0])):
        if point - breakpoints[-1] > _TOLERANCE:
            breakpoints.append(point)
    quantiles = [(left + right) / 2 for left, right in itertools.pairwise(breakpoints)]
    widths = np.zeros((len(quantiles), len(space)), dtype=np.int64)
    for column, edges in cumulative.items():
        widths[:, column] = np.searchsorted(edges, quantiles)
    lengths = np.diff(breakpoints)

    resolution = next((c for c, d in enumerate(space.dimensions) if d.kind == "resolution"), None)
    if resolution is None:
        return widths, lengths
    values = range(space.shape[resolution]) if all_resolutions else [space.shape[resolution] - 1]
    indices = np.tile(widths, (len(values), 1))
    indices[:, resolution] = np.repeat(values, len(widths))
    weights = np.asarray(space.dimensions[resolution].probabilities)[values]
    return indices, np.outer(weights / weights.sum(), lengths).ravel()


class BaselineSubnetSampler(SubnetSampler):
    """Draws that do not depend on targets or scores.

    Attributes:
        method: Its name in configs and checkpoints.
    """

    method: str
    _state_keys = ("method", "generator")
    _unread: tuple[Draw, Score] | None = None

    def update(self, draw: Draw, score: Score) -> None:
        """Learn nothing, but check that the score is finite; a callable one is read at the next call or state_dict."""
        self._read()
        self._unread = draw, score
        if not callable(score):
            self._read()

    def _read(self) -> None:
        if self._unread is not None:
            (draw, score), self._unread = self._unread, None
            check_score(draw.subnet, score() if callable(score) else score)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able method and random state."""
        self._read()
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
