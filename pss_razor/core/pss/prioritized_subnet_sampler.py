"""Which subnet is trained next: from the search space conditional on a target, or from the prioritized pools."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pss_razor.core.errors import CheckpointError, UnreachableTargetError
from pss_razor.core.pss.pool import PrioritizedPool, PrioritizedPools
from pss_razor.core.sampling.build_conditional_sampler import build_conditional_sampler
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler, ListSampler
from pss_razor.core.sampling.score import Score
from pss_razor.core.sampling.shared_multiplier import shared_multiplier_subnets
from pss_razor.core.sampling.subnet_sampler import Draw, SubnetSampler
from pss_razor.core.space.constraint import Constraint
from pss_razor.core.space.cost import AdditiveCost
from pss_razor.core.space.subnet import Subnet

# Draws from the space by which the share of each target is estimated.
_SHARE_DRAWS = 2**16
# Draws made for each new subnet that is to be scored; where a target has few subnets, draws repeat.
_DRAWS_A_CANDIDATE = 32


class PrioritizedSubnetSampler(SubnetSampler):
    """Draws from prioritized pools that learn from the scores (PSS-Net, section 3).

    The arguments from ``target_power`` on depart from the paper, which their defaults follow (``docs/evidence.md``).

    Args:
        costs: Metric -> resource of every subnet.
        constraints: The constraints, one for each metric.
        pool_size: Most entries of a pool. If a target has fewer distinct subnets, its pool holds that number, so that
            it can be full.
        score_momentum: Weight of the old score when a subnet is visited again.
        target_power: A target is drawn with a probability in proportion to this power of its share of the search space:
            0, all are equally likely; 1, as often as the space has them. First when exploring, then when drawing from
            pools.
        cost_power: The probability of a target is, besides, in proportion to this power of the target itself: at -1 one
            of half the cost is drawn twice as often.
        need: How many times as likely as others a target is whose best entry is beaten by a cheaper target's best.
        in_turn: Take the targets in turn, from the cheapest to the dearest and back, instead of drawing them.
        shared_share: Share of the explored subnets whose widths follow one multiplier for all layers, as in MutualNet
            (arXiv 1909.12978). Random widths are hardly ever all narrow, so that the space's own distribution has
            next to no narrow subnets at a high resolution.
        learns: Whether pools learn the scores of training batches. If not, only :meth:`rescore` fills them, and the
            target of an empty pool is explored.
        age_correction: See :class:`PrioritizedPool`.
        min_distance: See :class:`PrioritizedPool`.
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
        target_power: tuple[float, float] = (0.0, 0.0),
        cost_power: float = 0.0,
        need: float = 1.0,
        in_turn: bool = False,
        shared_share: float = 0.0,
        learns: bool = True,
        age_correction: bool = False,
        min_distance: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(costs, constraints, seed)
        self._keys = self.reachable_targets
        self.target_power = target_power
        self.cost_power = cost_power
        self.need = need
        self.in_turn = in_turn
        self.shared_share = shared_share
        self._shared_samplers = self._build_shared_samplers() if shared_share else {}
        self.learns = learns
        self.age_correction = age_correction
        capacities = {
            (m, target): min(pool_size, self.conditional_samplers[m].count(target)) for m, target in self._keys
        }
        self.pools = PrioritizedPools(
            capacities,
            score_momentum=score_momentum,
            learns=learns,
            age_correction=age_correction,
            min_distance=min_distance,
        )
        self.step = 0

    def _build_conditional_sampler(self, cost: AdditiveCost, constraint: Constraint) -> ConditionalSampler:
        return build_conditional_sampler(cost, constraint)

    def draw(self, p_explore: float = 1.0, temperature: float = 1.0) -> Draw:
        """Draw for the next iteration.

        In the paper all pools are equally likely, which picks a constraint in proportion to its number of targets and
        then one of its targets uniformly.

        Args:
            p_explore: Probability of a new subnet from the search space.
            temperature: Temperature of the softmax over the pool's scores.
        """
        self.step += 1
        if self.draws_equally:
            key = self._keys[self.generator.integers(len(self._keys))]
            explore = bool(self.generator.random() < p_explore)
        else:
            explore = bool(self.generator.random() < p_explore)
            key = self._next_in_turn() if self.in_turn else self._draw_target(explore)
        metric, target = key
        pool = self.pools[key]
        explore = explore or not self._is_ready(pool)
        if explore:
            indices, resources = self._explored_from(metric, target).draw_many(target, 1, self.generator)
            subnet, resource = self.space.decode(indices[0]), float(resources[0])
        else:
            subnet = pool.draw(temperature, self.generator)
            resource = pool[subnet].resource
        return Draw(subnet, explore, metric, target, resource)

    def update(self, draw: Draw, score: Score) -> None:
        """Tell the pool how its subnet did on the batch (minus the cross-entropy)."""
        assert draw.metric is not None and draw.target is not None and draw.resource is not None
        self.pools[draw.metric, draw.target].update(draw.subnet, score, draw.resource, self.step)

    @property
    def draws_equally(self) -> bool:
        """Whether all targets are equally likely, as in the paper."""
        return not any((*self.target_power, self.cost_power, self.need != 1, self.in_turn))

    @cached_property
    def target_shares(self) -> dict[tuple[str, float], float]:
        """(metric, target) -> about which part of the search space's own distribution belongs to it."""
        indices = self.space.draw(_SHARE_DRAWS, np.random.default_rng(0))
        shares: dict[tuple[str, float], float] = {}
        for metric, sampler in self.conditional_samplers.items():
            of = sampler.constraint.nearest_target_index(self.costs[metric](indices))
            counts = np.bincount(of[of >= 0], minlength=len(sampler.constraint.targets))
            # A target that no draw hit is rarer than one draw.
            shares |= {
                (metric, t): max(1, n) / len(of) for t, n in zip(sampler.constraint.targets, counts, strict=True)
            }
        return {key: shares[key] for key in self._keys}

    def target_probabilities(self, explore: bool) -> dict[tuple[str, float], float]:
        """(metric, target) -> how likely it is in the next draw, if targets are not taken in turn.

        Args:
            explore: Of a draw from the search space; else from the pools.
        """
        power = self.target_power[0 if explore else 1]
        weights = {
            key: key[1] ** self.cost_power * (self.target_shares[key] ** power if power else 1.0) for key in self._keys
        }
        if self.need != 1:
            for key in self.dominated_targets():
                weights[key] *= self.need
        total = sum(weights.values())
        return {key: weight / total for key, weight in weights.items()}

    def dominated_targets(self) -> list[tuple[str, float]]:
        """The targets whose best entry has a lower score than the best entry of a cheaper target of the metric."""
        dominated = []
        highest: dict[str, float] = {}
        for metric, target in self._keys:  # cheap ones first
            best = self.pools[metric, target].best(1)
            if not best:
                continue
            if best[0].score < highest.get(metric, -math.inf):
                dominated.append((metric, target))
            highest[metric] = max(best[0].score, highest.get(metric, -math.inf))
        return dominated

    def _build_shared_samplers(self) -> dict[str, ListSampler]:
        """Metric -> the subnets of one multiplier; without metrics that have none in any target."""
        subnets = shared_multiplier_subnets(self.space, all_resolutions=True)
        built = {}
        for metric, sampler in self.conditional_samplers.items():
            with contextlib.suppress(UnreachableTargetError):
                built[metric] = ListSampler(self.costs[metric], sampler.constraint, *subnets)
        return built

    def _explored(self, metric: str, target: float) -> Iterator[np.ndarray]:
        """Draws as exploring makes them, without end."""
        while True:
            yield self._explored_from(metric, target).draw_many(target, 1, self.generator)[0][0]

    def _explored_from(self, metric: str, target: float) -> ConditionalSampler:
        """What the next explored subnet is drawn from."""
        shared = self._shared_samplers.get(metric)
        if shared and target in shared.reachable_targets and self.generator.random() < self.shared_share:
            return shared
        return self.conditional_samplers[metric]

    def _draw_target(self, explore: bool) -> tuple[str, float]:
        probabilities = list(self.target_probabilities(explore).values())
        return self._keys[self.generator.choice(len(self._keys), p=probabilities)]

    def _next_in_turn(self) -> tuple[str, float]:
        """The targets back and forth: each is a neighbour of the one before."""
        there_and_back = [*self._keys, *self._keys[-2:0:-1]]
        return there_and_back[(self.step - 1) % len(there_and_back)]

    def _is_ready(self, pool: PrioritizedPool) -> bool:
        """Whether draws may come from the pool instead of the search space."""
        return pool.is_full if self.learns else len(pool) > 0

    def to_score(self, fresh: int) -> dict[tuple[str, float], dict[Subnet, float]]:
        """What to score anew: for each target its entries, and up to ``fresh`` others conditional on the target.

        The smallest and the largest subnet are among those of their targets if any others are: every training step
        trains them.

        Returns:
            (metric, target) -> subnet -> resource.
        """
        found: dict[tuple[str, float], dict[Subnet, float]] = {}
        ends = self.space.encode([self.space.smallest, self.space.largest])
        for metric, target in self._keys:
            sampler = self.conditional_samplers[metric]
            own = {entry.subnet: entry.resource for entry in self.pools[metric, target]}
            wanted = min(len(own) + fresh, sampler.count(target))
            candidates = itertools.chain(ends[sampler.belongs(target, ends)], self._explored(metric, target))
            for row in itertools.islice(candidates, _DRAWS_A_CANDIDATE * fresh):
                if len(own) == wanted:
                    break
                own.setdefault(self.space.decode(row), float(self.costs[metric](row[None])[0]))
            found[metric, target] = own
        return found

    def rescore(self, scores: Mapping[tuple[str, float], Mapping[Subnet, float]], keep: int | None = None) -> None:
        """Replace the entries of pools by the best of what was scored anew.

        Args:
            scores: (metric, target) -> subnet -> score, comparable among all of them.
            keep: How many to keep in each pool; None keeps as many as it may have.
        """
        for (metric, target), of_subnets in scores.items():
            subnets = list(of_subnets)
            resources = map(float, self.costs[metric](self.space.encode(subnets)))
            self.pools[metric, target].rescore(of_subnets, dict(zip(subnets, resources, strict=True)), keep)

    def candidates(self, top_k: int) -> dict[tuple[str, float], list[tuple[Subnet, float | None]]]:
        """Each pool's ``top_k`` best by score; fewer where a pool has fewer."""
        return {key: [(entry.subnet, entry.score) for entry in pool.best(top_k)] for key, pool in self.pools.items()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able pools, their turnover, the number of draws, and random state."""
        state = {
            "pools": self.pools.state_dict(self.space),
            "turnover": self.pools.turnover_state(),
            "step": self.step,
            **super().state_dict(),
        }
        if self.age_correction:
            state["usual_scores"] = [pool.usual_score for pool in self.pools.values()]
        return state

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
        for pool, usual in zip(self.pools.values(), state.get("usual_scores", ()), strict=False):
            pool.usual_score = None if usual is None else float(usual)
