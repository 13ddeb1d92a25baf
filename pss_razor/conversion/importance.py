"""Order the channels of every group by importance, without changing what a network computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pss_razor.conversion.groups import ChannelGroup, Segment
from pss_razor.core import ConfigError

Axis = tuple[Tensor, int, tuple[Segment, ...]]
SORTS = ("l1", "bn")


def sort_channels(axes: Sequence[Axis], groups: Iterable[ChannelGroup], sort: str, norms: Sequence[Axis]) -> None:
    """Permute every tensor that a group touches, so that its most important channels come first.

    Args:
        axes: Every tensor and axis that is made up of groups.
        groups: The groups to sort, roots.
        sort: ``"l1"``: by the sum of the absolute weights that make a channel; ``"bn"``: by the absolute weights of the
            norms that it passes (by ``"l1"`` where it passes none).
        norms: Those of ``axes`` that are weights of norms.

    Raises:
        ConfigError: ``sort`` is something else.
    """
    if sort not in SORTS:
        raise ConfigError(f"sort = {sort!r} is not known; choose from {SORTS}, or None")
    with torch.no_grad():
        for group in groups:
            score = _score(group, norms) if sort == "bn" else None
            if score is None:
                score = _score(group, [axis for axis in axes if axis[1] == 0 and axis[0].dim() > 1])
            if score is None:
                continue
            units = score.reshape(-1, group.unit).sum(1).argsort(descending=True, stable=True)
            order = (units[:, None] * group.unit + torch.arange(group.unit, device=units.device)).flatten()
            for tensor, axis, segments in axes:
                if any(segment.group.root is group for segment in segments):
                    _permute(tensor, axis, segments, group, order)


def _score(group: ChannelGroup, axes: Sequence[Axis]) -> Tensor | None:
    """Sum of absolute values that belong to each channel, over all axes that have it; None if none has."""
    total = None
    for tensor, axis, segments in axes:
        start = 0
        for segment in segments:
            if segment.group.root is group:
                part = tensor.narrow(axis, start, segment.size).abs().movedim(axis, 0)
                own = part.reshape(group.size, -1).double().sum(1)
                total = own if total is None else total + own
            start += segment.size
    return total


def _permute(tensor: Tensor, axis: int, segments: Sequence[Segment], group: ChannelGroup, order: Tensor) -> None:
    start = 0
    for segment in segments:
        if segment.group.root is group:
            positions = (order[:, None] * segment.repeat + torch.arange(segment.repeat, device=order.device)).flatten()
            part = tensor.narrow(axis, start, segment.size)
            part.copy_(part.index_select(axis, positions.to(tensor.device)))
        start += segment.size
