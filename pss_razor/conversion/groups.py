"""Which channels of a network belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(eq=False)
class ChannelGroup:
    """Channels that are searched, or left, together: every tensor that has one of them has them all.

    Args:
        size: Channels of the full network, as the layer of this name has them.
        name: The layer that makes them.
        unit: Channels that come and go together: of a grouped conv, an attention head.
        frozen: Why the group stays at full width; None if it is searched.
    """

    size: int
    name: str
    unit: int = 1
    frozen: str | None = None

    def freeze(self, reason: str) -> None:
        """Leave the group at full width; the first reason is kept."""
        self.frozen = self.frozen or reason


@dataclass(frozen=True)
class Segment:
    """What a group has of a tensor's channel axis.

    Args:
        group: Whose channels they are.
        size: Positions in the full network.
    """

    group: ChannelGroup
    size: int

    def active(self, widths: Any) -> Any:
        """Positions that are active when the group has so many channels, a number or an array."""
        return widths * self.size // self.group.size


@dataclass(frozen=True)
class Run:
    """Consecutive positions of a channel axis that belong to consecutive units of a group, equally many to each.

    Args:
        group: The group.
        first: The first unit.
        units: How many units.
        repeat: Positions of each unit.
    """

    group: ChannelGroup
    first: int
    units: int
    repeat: int

    @property
    def size(self) -> int:
        """Positions in the full network."""
        return self.units * self.repeat

    def active(self, width: int) -> int:
        """Positions that are active when the group has ``width`` channels."""
        return min(max(width // self.group.unit - self.first, 0), self.units) * self.repeat


@dataclass(frozen=True, eq=False)
class Axis:
    """How a channel axis is made up.

    Args:
        groups: The groups, each once.
        owner: Of each position, the index of its group.
        unit: Of each position, the unit in its group.
        channel: Of each position, a number of its channel; positions with one number hold the same channel.
    """

    groups: tuple[ChannelGroup, ...]
    owner: np.ndarray
    unit: np.ndarray
    channel: np.ndarray

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What each group has of it."""
        counts = np.bincount(self.owner, minlength=len(self.groups))
        return tuple(Segment(group, int(n)) for group, n in zip(self.groups, counts, strict=True))

    @property
    def runs(self) -> tuple[Run, ...]:
        """From the first position to the last, as few as possible."""
        owner, unit = self.owner, self.unit
        starts = np.flatnonzero(np.r_[True, (np.diff(owner) != 0) | (np.diff(unit) != 0)])
        lengths = np.diff(np.r_[starts, len(owner)])
        owner, unit = owner[starts], unit[starts]
        follows = (np.diff(owner) == 0) & (np.diff(unit) == 1) & (np.diff(lengths) == 0)
        firsts = np.flatnonzero(np.r_[True, ~follows])
        counts = np.diff(np.r_[firsts, len(owner)])
        return tuple(
            Run(self.groups[owner[i]], int(unit[i]), int(count), int(lengths[i]))
            for i, count in zip(firsts, counts, strict=True)
        )

    def positions(self, group: ChannelGroup) -> np.ndarray:
        """Positions of a group's units, in their order: (units, positions a unit)."""
        own = np.flatnonzero(self.owner == self.groups.index(group))
        return own[np.argsort(self.unit[own], kind="stable")].reshape(group.size // group.unit, -1)


class Channels:
    """All channels of a network, by number: what they have to do with each other is collected, then grouped."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._counts: list[int] = []
        self._total = 0
        self._same: list[np.ndarray] = []
        self._tied: list[np.ndarray] = []
        self._frozen: list[tuple[np.ndarray, str]] = []

    def new(self, count: int, name: str) -> np.ndarray:
        """Numbers of new channels, made by a layer."""
        self._names.append(name)
        self._counts.append(count)
        self._total += count
        return np.arange(self._total - count, self._total)

    def unite(self, first: np.ndarray, second: np.ndarray) -> None:
        """The channels of two tensors are the same, position by position, because they are added, say."""
        self._same.append(np.stack([first, second]))

    def tie(self, rows: np.ndarray) -> None:
        """The channels of each row come and go together; (rows, channels)."""
        self._tied.append(np.stack([rows[:, :-1].ravel(), rows[:, 1:].ravel()]))

    def freeze(self, channels: np.ndarray, reason: str) -> None:
        """Leave channels, and all that come and go with them, at full width; the first reason is kept."""
        self._frozen.append((np.asarray(channels), reason))

    def stay(self, channels: Sequence[np.ndarray]) -> list[bool]:
        """Of each array, whether any of its channels stays: left at full width, or as one unit."""
        unit = _components(self._total, [*self._same, *self._tied])
        stays = np.zeros(self._total, dtype=bool)
        for own, _ in self._frozen:
            stays[unit[own]] = True
        return [bool(stays[unit[own]].any() or (unit[own] == unit[own[0]]).all()) for own in channels]

    def group(self, axes: Sequence[np.ndarray]) -> tuple[list[ChannelGroup], list[Axis]]:
        """Group the channels: of one group are those that are in the same axes, equally often.

        Args:
            axes: Channels of every axis that is cut.

        Returns:
            The groups in running order, and each axis.
        """
        channel = _components(self._total, self._same)
        unit = _components(self._total, [*self._same, *self._tied])
        producer = np.repeat(np.arange(len(self._names)), self._counts)
        # Channels of a unit, of those that its first layer makes.
        sizes = np.bincount(unit[producer == producer[unit]], minlength=self._total)
        reasons = np.zeros(self._total, dtype=np.int64)
        for number, (own, _) in reversed(list(enumerate(self._frozen))):
            reasons[unit[own]] = number + 1
        _, kinds = np.unique(reasons * (sizes.max() + 1) + sizes, return_inverse=True)
        fresh = int(kinds.max()) + 1
        is_used = np.zeros(self._total, dtype=bool)
        for own in axes:
            members, counts = np.unique(unit[own], return_counts=True)
            _, kind = np.unique(kinds[members] * (counts.max() + 1) + counts, return_inverse=True)
            kinds[members] = fresh + kind
            fresh += int(kind.max()) + 1
            is_used[members] = True
        units = np.flatnonzero(is_used)
        first, members = np.unique(kinds[units], return_index=True, return_inverse=True)[1:]
        group_of, position = np.zeros(self._total, dtype=np.int64), np.zeros(self._total, dtype=np.int64)
        groups: list[ChannelGroup] = []
        names: dict[str, int] = {}
        for index in np.argsort(first):
            own = units[members == index]
            group_of[own], position[own] = len(groups), np.arange(len(own))
            name = self._names[producer[own[0]]]
            names[name] = names.get(name, 0) + 1
            if names[name] > 1:
                name = f"{name}.part{names[name]}"
            reason = reasons[own[0]]
            size = int(sizes[own[0]])
            frozen = self._frozen[reason - 1][1] if reason else None
            groups.append(ChannelGroup(len(own) * size, name, size, frozen))
        return groups, [self._axis(groups, group_of[unit[own]], position[unit[own]], channel[own]) for own in axes]

    @staticmethod
    def _axis(groups: Sequence[ChannelGroup], group: np.ndarray, unit: np.ndarray, channel: np.ndarray) -> Axis:
        own, first, owner = np.unique(group, return_index=True, return_inverse=True)
        order = np.argsort(first)
        return Axis(tuple(groups[own[i]] for i in order), np.argsort(order)[owner], unit, channel)


def _components(count: int, pairs: Sequence[np.ndarray]) -> np.ndarray:
    """Of each number below ``count`` the least that it is connected with, over (2, N) pairs."""
    least = np.arange(count)
    first, second = np.concatenate([np.zeros((2, 0), dtype=np.int64), *pairs], axis=1)
    while True:
        a, b = least[first], least[second]
        if np.array_equal(a, b):
            return least
        np.minimum.at(least, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(least, shorter := least[least]):
            least = shorter
