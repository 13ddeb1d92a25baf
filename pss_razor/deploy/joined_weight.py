"""Weights of subnets that are not the first rows and columns of the common ones, but several parts of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pss_razor.core import ExportError
from pss_razor.static.static_net import show

# Of the first two axes: (start, length) of each part, increasing; of one that is not there, the first positions.
Parts = Mapping[int, Sequence[tuple[int, int]]]


class JoinedWeight(nn.Module):
    """Joins the parts of a weight whenever it is read: for subnets that do not run nothing is copied.

    A parametrization of ``torch.nn.utils.parametrize``, for layers behind a concatenation, whose input is the first
    channels of each of several tensors.

    Args:
        shape: Of the joined weight.
        parts: Where it lies in the common one.
    """

    def __init__(self, shape: Sequence[int], parts: Parts) -> None:
        super().__init__()
        self.shape = torch.Size(shape)
        self.parts = parts

    def forward(self, weight: Tensor) -> Tensor:
        """The joined weight, of the common one, or of what was joined before."""
        if weight.shape == self.shape:
            return weight
        weight = weight[tuple(slice(None if axis in self.parts else n) for axis, n in enumerate(self.shape))]
        for axis, ranges in self.parts.items():
            weight = torch.cat([weight.narrow(axis, *own) for own in ranges], axis)
        return weight


def join(net: nn.Module, name: str, common: Tensor, shape: Sequence[int], parts: Parts) -> None:
    """Let a parameter of a network be joined of parts of a common tensor, of which it holds no copy."""
    owner, _, short = name.rpartition(".")
    module = net.get_submodule(owner)
    setattr(module, short, nn.Parameter(common, requires_grad=False))
    parametrize.register_parametrization(module, short, JoinedWeight(shape, parts), unsafe=True)


def place(shape: Sequence[int], parts: Parts) -> tuple[Any, ...]:
    """Index of a weight of a shape in the common one, to read and to write it."""
    if not parts:
        return tuple(slice(size) for size in shape)
    ranges = [parts.get(axis, [(0, size)]) for axis, size in enumerate(shape[:2])]
    rows, *columns = (torch.cat([torch.arange(start, start + length) for start, length in own]) for own in ranges)
    return (rows[:, None], *columns, *(slice(size) for size in shape[2:])) if columns else (rows,)


def extent(shape: Sequence[int], parts: Parts) -> tuple[int, ...]:
    """Least shape of the common tensor."""
    return tuple(sum(parts[axis][-1]) if axis in parts else size for axis, size in enumerate(shape))


def parts_to_json(parts: Parts) -> list[Any]:
    """As plain values: ``[[axis, [[start, length], …]], …]``."""
    return [[axis, [list(own) for own in ranges]] for axis, ranges in sorted(parts.items())]


def parts_from_json(name: str, value: Any, shape: Sequence[int]) -> Parts:
    """Read what :func:`parts_to_json` wrote, for a weight of a shape.

    Raises:
        ExportError: It is something else, or does not make up the shape.
    """
    parts: dict[int, list[tuple[int, int]]] = {}
    good = isinstance(value, list) and all(isinstance(own, list) and len(own) == 2 for own in value)
    for axis, ranges in value if good else ():
        good &= type(axis) is int and 0 <= axis < min(2, len(shape)) and axis not in parts
        good &= isinstance(ranges, list) and len(ranges) > 1
        good = good and all(
            isinstance(own, list) and len(own) == 2 and all(type(n) is int for n in own) and own[0] >= 0 < own[1]
            for own in ranges
        )
        if not good:
            break
        ends = [start + length for start, length in ranges]
        good = all(end <= ranges[i + 1][0] for i, end in enumerate(ends[:-1]))
        good &= sum(length for _, length in ranges) == shape[axis]
        parts[axis] = [(start, length) for start, length in ranges]
    if not good or not parts:
        raise ExportError(
            f"the parts of {show(name)} are {show(value)}; they must be increasing ranges that make up "
            f"{tuple(shape)}; export the bundle again"
        )
    return parts
