"""What reshapes do to axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import fx

Shape = tuple[int, ...]
# Elements of the largest tensor whose permutation is looked at.
_LARGEST = 2**24


def match_axes(before: Shape, after: Shape) -> list[tuple[range, range]] | None:
    """Axes of a tensor and of its reshaped one that hold the same elements, as small as possible, in order."""
    matches = []
    i = j = 0
    while i < len(before) or j < len(after):
        first, second = i, j
        i, j = i + 1, j + 1
        while (own := math.prod(before[first:i])) != (other := math.prod(after[second:j])):
            if own < other and i < len(before):
                i += 1
            elif own > other and j < len(after):
                j += 1
            else:
                return None
        matches.append((range(first, min(i, len(before))), range(second, min(j, len(after)))))
    return matches


def find_shuffle(node: fx.Node, axis: int, shapes: dict[str, Shape | None]) -> tuple[fx.Node, np.ndarray] | None:
    """The last of a row of reshapes and permutations, from ``node`` on, that permute the positions of one axis alone.

    Returns:
        The last node, and of each position of its axis the position of it before; None if there is no such row.
    """
    (source, *_) = node.all_input_nodes
    shape = shapes[source.name]
    assert shape is not None
    shape = (1, *shape[1:])
    if math.prod(shape) > _LARGEST:
        return None
    before = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    value = before
    while True:
        moved = _move(node, value, shapes)
        if moved is None:
            return None
        value = moved
        if value.shape == shape:
            others = tuple(0 if i != axis else slice(None) for i in range(len(shape)))
            order = (value[others] // math.prod(shape[axis + 1 :])) % shape[axis]
            if np.array_equal(value, before.take(order, axis)):
                return node, order
        if len(node.users) != 1:
            return None
        node = next(iter(node.users))


def _move(node: fx.Node, value: np.ndarray, shapes: dict[str, Shape | None]) -> np.ndarray | None:
    """What a reshape or a permutation makes of a value for one image; None if it is something else."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    shape = shapes.get(node.name)
    if node.op not in ("call_method", "call_function") or shape is None:
        return None
    if name in ("view", "reshape", "flatten"):
        new = (1, *shape[1:])
        return value.reshape(new) if math.prod(new) == value.size else None
    if name == "contiguous":
        return value
    if name in ("transpose", "permute"):
        return value.transpose(permutation(node, value.ndim))
    return None


def permutation(node: fx.Node, ndim: int) -> Sequence[int]:
    """Of each axis of what ``transpose`` or ``permute`` returns, the axis before."""
    rest: list[Any] = list(node.args[1:]) or list(node.kwargs.values())
    axes = [axis % ndim for axis in (rest[0] if isinstance(rest[0], list | tuple) else rest)]
    if node.target == "permute" or getattr(node.target, "__name__", "") == "permute":
        return axes
    first, second = axes
    order = list(range(ndim))
    order[first], order[second] = second, first
    return order
