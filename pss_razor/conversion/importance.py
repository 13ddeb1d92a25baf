"""Order the channels of every group by importance, without changing what a network computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from pss_razor.conversion.groups import Axis, ChannelGroup
from pss_razor.core import ConfigError

# A tensor, one of its axes, and how that is made up.
CutTensor = tuple[Tensor, int, Axis]
SORTS = ("l1", "bn")


def sort_channels(
    tensors: Sequence[CutTensor], groups: Iterable[ChannelGroup], sort: str, norms: Sequence[CutTensor]
) -> None:
    """Permute every tensor that a group touches, so that its most important channels come first.

    Args:
        tensors: Every tensor and axis that is made up of groups.
        groups: The groups to sort.
        sort: ``"l1"``: by the sum of the absolute weights that make a channel; ``"bn"``: by the absolute weights of the
            norms that it passes (by ``"l1"`` where it passes none).
        norms: Those of ``tensors`` that are weights of norms.

    Raises:
        ConfigError: ``sort`` is something else.
    """
    if sort not in SORTS:
        raise ConfigError(f"sort = {sort!r} is not known; choose from {SORTS}, or None")
    with torch.no_grad():
        for group in groups:
            score = _score(group, norms) if sort == "bn" else None
            if score is None:
                score = _score(group, [own for own in tensors if own[1] == 0 and own[0].dim() > 1])
            touched = [(tensor, axis, made.positions(group)) for tensor, axis, made in tensors if group in made.groups]
            if score is None or not _can_sort(group, [made for _, _, made in tensors if group in made.groups]):
                continue
            order = score.argsort(descending=True, stable=True).cpu().numpy()
            for tensor, axis, positions in touched:
                _permute(tensor, axis, positions, order)


def _score(group: ChannelGroup, tensors: Sequence[CutTensor]) -> Tensor | None:
    """Sum of absolute values that belong to each unit, over all tensors that have it; None if none has."""
    total = None
    for tensor, axis, made in tensors:
        if group in made.groups:
            positions = torch.from_numpy(made.positions(group)).to(tensor.device)
            own = tensor.abs().movedim(axis, 0).flatten(1) if tensor.dim() > 1 else tensor.abs()[:, None]
            score = own.double().sum(1)[positions].sum(1)
            total = score if total is None else total + score
    return total


def _can_sort(group: ChannelGroup, axes: Sequence[Axis]) -> bool:
    """Whether a channel has the same place in each unit, so that units can change places as wholes."""
    place: dict[int, int] = {}
    for made in axes:
        channels = made.channel[made.positions(group)]
        for column, own in enumerate(channels.T):
            known = {place.setdefault(int(channel), column) for channel in own}
            if len(known) > 1:
                return False
    return True


def _permute(tensor: Tensor, axis: int, positions: np.ndarray, order: np.ndarray) -> None:
    """Let each unit have the values of another."""
    target, source = (torch.from_numpy(own.ravel()).to(tensor.device) for own in (positions, positions[order]))
    tensor.index_copy_(axis, target, tensor.index_select(axis, source))
