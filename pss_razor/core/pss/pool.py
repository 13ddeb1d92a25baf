"""Prioritized pools: for every target, the subnets that trained best so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pss_razor.core.errors import CheckpointError, ConfigError
from pss_razor.core.sampling.score import Score, check_score
from pss_razor.core.scalars import is_number
from pss_razor.core.space.search_space import SearchSpace
from pss_razor.core.space.subnet import Subnet

# Of the running average of a pool's scores, from which its age correction starts.
_USUAL_MOMENTUM = 0.95


@dataclass
class PoolEntry:
    """What a pool knows of one subnet.

    Args:
        subnet: The subnet.
        score: Running average of minus its cross-entropy on training batches; higher is better.
        resource: Its cost, in the unit of the pool's metric.
        visits: How many batches the score saw.
        first_step: Draw of the sampler at which it came into the pool; None if that is not known.
        last_step: Draw at which it was visited last; None if that is not known.
    """

    subnet: Subnet
    score: float
    resource: float
    visits: int = 1
    first_step: int | None = None
    last_step: int | None = None


# Fields of an entry in records, beside its subnet.
_RECORDED = ("score", "resource", "visits", "first_step", "last_step")


@dataclass
class Turnover:
    """How often a pool was visited, how many subnets came in, and how many of these it dropped.

    A newcomer with the lowest score of a full pool counts as both.
    """

    visits: int = 0
    insertions: int = 0
    drops: int = 0


class PrioritizedPool:
    """The best subnets of one target (PSS-Net, section 3).

    Args:
        capacity: Most entries it keeps.
        score_momentum: Weight of the old score when a subnet is visited again.
        learns: Whether the scores of visits count and new subnets come in; if not, only :meth:`rescore` changes more
            than the number of visits.
        age_correction: Whether a score is what a batch's score exceeds the pool's usual score by, at the time of the
            visit: the loss falls during training, and an old score would look bad beside a new one.
        min_distance: Keep diverse members: of two that differ in fewer groups than this, the worse is dropped first.
            0, as in the paper, drops the lowest score.

    Attributes:
        usual_score: Running average of the scores of its visits; None before the first, or without age correction.
    """

    def __init__(
        self,
        capacity: int,
        score_momentum: float = 0.9,
        learns: bool = True,
        age_correction: bool = False,
        min_distance: int = 0,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"pool_size = {capacity} must be at least 1")
        self.capacity = capacity
        self.score_momentum = score_momentum
        self.learns = learns
        self.age_correction = age_correction
        self.min_distance = min_distance
        self.usual_score: float | None = None
        self._up_to_date: dict[Subnet, PoolEntry] = {}
        self._unread: list[tuple[Subnet, Score, float, int | None]] = []
        self._turnover = Turnover()

    @property
    def _entries(self) -> dict[Subnet, PoolEntry]:
        """The entries, after all updates."""
        unread, self._unread = self._unread, []
        for update in unread:
            self._apply(*update)
        return self._up_to_date

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[PoolEntry]:
        return iter(self._entries.values())

    def __contains__(self, subnet: object) -> bool:
        return subnet in self._entries

    def __getitem__(self, subnet: Subnet) -> PoolEntry:
        return self._entries[subnet]

    @property
    def turnover(self) -> Turnover:
        """Visits, insertions and drops so far."""
        _ = self._entries  # counted when updates are applied
        return self._turnover

    @property
    def is_full(self) -> bool:
        """Whether draws may come from the pool instead of the search space."""
        return len(self._entries) >= self.capacity

    def update(self, subnet: Subnet, score: Score, resource: float, step: int | None = None) -> None:
        """Insert a new subnet or average the score of a known one; above capacity the lowest score is dropped.

        Args:
            subnet: The subnet.
            score: Its score on a batch. A callable one is called when the pool is next read.
            resource: Its cost, in the unit of the pool's metric.
            step: Draw of the sampler that this is the visit of; None if that is not known.

        Raises:
            TrainingDivergedError: The score is not finite. A callable one raises it when the pool is next read.
        """
        if not callable(score):
            check_score(subnet, score)
        self._unread.append((subnet, score, float(resource), step))

    def _apply(self, subnet: Subnet, unread: Score, resource: float, step: int | None) -> None:
        score = float(unread() if callable(unread) else unread)  # numpy scalars are not JSON-able
        check_score(subnet, score)
        self._turnover.visits += 1
        if not self.learns:
            if (known := self._up_to_date.get(subnet)) is not None:
                known.visits += 1
                known.first_step = step if known.first_step is None else known.first_step
                known.last_step = step
            return
        if self.age_correction:
            usual = score if self.usual_score is None else self.usual_score
            self.usual_score = _USUAL_MOMENTUM * usual + (1 - _USUAL_MOMENTUM) * score
            score -= usual
        entry = self._up_to_date.get(subnet)
        if entry is None:
            self._up_to_date[subnet] = PoolEntry(subnet, score, resource, first_step=step, last_step=step)
            self._turnover.insertions += 1
            if len(self._up_to_date) > self.capacity:
                self._turnover.drops += 1
                del self._up_to_date[self._to_drop().subnet]
        else:
            entry.score = self.score_momentum * entry.score + (1 - self.score_momentum) * score
            entry.visits += 1
            entry.last_step = step

    def _to_drop(self) -> PoolEntry:
        """The lowest entry; with ``min_distance``, the lowest that is near to a better one, if there is any."""
        by_score = sorted(self._up_to_date.values(), key=lambda entry: entry.score)
        for rank, entry in enumerate(by_score if self.min_distance else []):
            if any(_distance(entry.subnet, better.subnet) < self.min_distance for better in by_score[rank + 1 :]):
                return entry
        return by_score[0]

    def rescore(self, scores: Mapping[Subnet, float], resources: Mapping[Subnet, float], keep: int | None) -> None:
        """Replace the entries by the best of subnets that were scored on the same images.

        Args:
            scores: Subnet -> score.
            resources: Subnet -> cost, in the unit of the pool's metric.
            keep: How many to keep; None, or more than the capacity, keeps as many as it may have.

        Raises:
            TrainingDivergedError: A score is not finite.
        """
        known = self._entries
        for subnet, score in scores.items():
            check_score(subnet, score)
        keep = self.capacity if keep is None else min(keep, self.capacity)
        best = sorted(scores, key=lambda subnet: -scores[subnet])[:keep]
        self._turnover.insertions += sum(subnet not in known for subnet in best)
        self._turnover.drops += sum(subnet not in best for subnet in known)
        self._up_to_date = {
            subnet: dataclasses.replace(known[subnet], score=scores[subnet])
            if subnet in known
            else PoolEntry(subnet, scores[subnet], resources[subnet], visits=0)
            for subnet in best
        }

    def draw(self, temperature: float, generator: np.random.Generator) -> Subnet:
        """Draw an entry with probabilities ``softmax(score / temperature)``."""
        entries = list(self)
        logits = np.array([entry.score for entry in entries]) / temperature
        weights = np.exp(logits - logits.max())
        return entries[generator.choice(len(entries), p=weights / weights.sum())].subnet

    def best(self, count: int) -> list[PoolEntry]:
        """The ``count`` entries of highest score, best first; fewer if the pool holds fewer."""
        return sorted(self, key=lambda entry: -entry.score)[:count]

    def to_records(self, space: SearchSpace) -> list[dict[str, Any]]:
        """JSON-able entries in insertion order, which draws depend on."""
        return [{**space.to_record(entry.subnet), **{key: getattr(entry, key) for key in _RECORDED}} for entry in self]

    def load_turnover(self, record: Mapping[str, Any]) -> None:
        """Replace the counts by saved ones."""
        counts = [_check_count(record[key]) for key in ("visits", "insertions", "drops")]
        if None in counts:
            raise ValueError(f"its counts are {counts}")
        self._turnover = Turnover(*counts)  # type: ignore[arg-type]

    def load_records(self, space: SearchSpace, records: list[dict[str, Any]]) -> None:
        """Replace the entries by those of :meth:`to_records`; above capacity the best stay.

        Records of version 0.2 have no steps.
        """
        self._up_to_date, self._unread, self._turnover = {}, [], Turnover()
        for record in records:
            subnet = space.from_record(record)
            if not (is_number(record["score"]) and is_number(record["resource"])):
                raise ValueError(f"score {record['score']!r:.50} and resource {record['resource']!r:.50} of {subnet}")
            self._up_to_date[subnet] = PoolEntry(
                subnet,
                float(record["score"]),
                float(record["resource"]),
                int(record["visits"]),
                _check_count(record.get("first_step")),
                _check_count(record.get("last_step")),
            )
        if len(self) > self.capacity:  # saved with a larger pool_size
            kept = {entry.subnet for entry in self.best(self.capacity)}
            self._up_to_date = {subnet: entry for subnet, entry in self._up_to_date.items() if subnet in kept}


def _distance(one: Subnet, other: Subnet) -> int:
    """In how many groups two subnets differ."""
    return sum(choice != other[group] for group, choice in one.items())


class PrioritizedPools(Mapping[tuple[str, float], PrioritizedPool]):
    """All pools of a supernet, by (metric, target).

    Args:
        capacities: (metric, target) -> most entries of that pool.
        **settings: Of :class:`PrioritizedPool`, the same for all.
    """

    def __init__(self, capacities: Mapping[tuple[str, float], int], **settings: Any) -> None:
        self._pools = {key: PrioritizedPool(capacity, **settings) for key, capacity in capacities.items()}

    def __getitem__(self, key: tuple[str, float]) -> PrioritizedPool:
        return self._pools[key]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def state_dict(self, space: SearchSpace) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """JSON-able: metric -> target -> entries."""
        state: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for (metric, target), pool in self.items():
            state.setdefault(metric, {})[str(target)] = pool.to_records(space)
        return state

    def turnover_state(self) -> dict[str, dict[str, dict[str, int]]]:
        """JSON-able: metric -> target -> counts of :class:`Turnover`."""
        state: dict[str, dict[str, dict[str, int]]] = {}
        for (metric, target), pool in self.items():
            state.setdefault(metric, {})[str(target)] = dataclasses.asdict(pool.turnover)
        return state

    def load_turnover_state(self, state: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
        """Load what :meth:`turnover_state` returned.

        Raises:
            CheckpointError: It is damaged, or of other metrics or targets.
        """
        for (metric, target), pool in self.items():
            try:
                pool.load_turnover(state[metric][str(target)])
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"the turnover of the pool {metric} = {target} in the checkpoint is damaged: {error!r}"
                ) from error

    def load_state_dict(self, space: SearchSpace, state: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            CheckpointError: The saved pools are for other metrics, targets, or another search space.
        """
        if not isinstance(state, Mapping) or not all(isinstance(pools, Mapping) for pools in state.values()):
            raise CheckpointError("the pools of the checkpoint are not a table of metrics and targets")
        saved = {(str(metric), str(target)) for metric, pools in state.items() for target in pools}
        wanted = {(metric, str(target)) for metric, target in self}
        if saved != wanted:
            example = sorted(saved ^ wanted)[0]
            where = "checkpoint, not in the config" if example in saved else "config, not in the checkpoint"
            raise CheckpointError(
                f"the pools of the checkpoint do not fit the config's constraints: {example[0]} = {example[1]} is in "
                f"the {where} ({len(saved ^ wanted)} pools differ); use the config that the checkpoint was trained with"
            )
        for (metric, target), pool in self.items():
            try:
                pool.load_records(space, state[metric][str(target)])
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
                raise CheckpointError(
                    f"the pool {metric} = {target} of the checkpoint is not of this search space: {error}"
                ) from error


def _check_count(value: Any) -> int | None:
    """A saved count; None if it was not known."""
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError(f"{value!r:.50} is no count")
    return value
