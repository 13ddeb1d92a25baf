"""Which channels of a network belong together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(eq=False)
class ChannelGroup:
    """Channels that are searched, or left, together: of tensors that are added, multiplied or convolved depthwise.

    Args:
        size: Channels of the full network.
        name: The layer that makes them.
        number: In running order; united groups have the first one's name.
        unit: Channels that come and go together, of a grouped conv.
        frozen: Why the group stays at full width; None if it is searched.
    """

    size: int
    name: str
    number: int
    unit: int = 1
    frozen: str | None = None
    _parent: ChannelGroup | None = field(default=None, repr=False)

    @property
    def root(self) -> ChannelGroup:
        """The group that this one has become a part of."""
        group = self
        while group._parent is not None:
            group = group._parent
        return group

    def unite(self, other: ChannelGroup) -> None:
        """Tie two groups of one size."""
        if self.root is other.root:
            return
        first, second = sorted((self.root, other.root), key=lambda group: group.number)
        assert first.size == second.size
        second._parent = first
        first.unit = math.lcm(first.unit, second.unit)
        first.frozen = first.frozen or second.frozen

    def freeze(self, reason: str) -> None:
        """Leave the group at full width; the first reason is kept."""
        self.root.frozen = self.root.frozen or reason


@dataclass(frozen=True)
class Segment:
    """Consecutive positions of a tensor's channel axis.

    Args:
        group: Whose channels they are, in its order.
        repeat: Positions of each channel, H × W after a flatten.
    """

    group: ChannelGroup
    repeat: int = 1

    @property
    def size(self) -> int:
        """Positions in the full network."""
        return self.group.root.size * self.repeat


@dataclass(frozen=True)
class Layout:
    """How the channels of a tensor are made up.

    Args:
        axis: The channel axis, counted from the front.
        segments: From the first position to the last.
    """

    axis: int
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Positions in the full network."""
        return sum(segment.size for segment in self.segments)

    def freeze(self, reason: str) -> None:
        """Leave all groups at full width."""
        for segment in self.segments:
            segment.group.freeze(reason)


def unite(first: Layout, second: Layout, reason: str) -> None:
    """Tie the channels of two tensors position by position; what cannot be tied is frozen.

    Args:
        first: Of one tensor.
        second: Of the other.
        reason: Why, if the tensors are made up of other parts.
    """
    pairs = list(zip(first.segments, second.segments, strict=False))
    same = len(first.segments) == len(second.segments) and all(
        a.size == b.size and a.repeat == b.repeat for a, b in pairs
    )
    if same:
        for a, b in pairs:
            a.group.unite(b.group)
    else:
        first.freeze(reason)
        second.freeze(reason)
