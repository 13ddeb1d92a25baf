"""Parts of a parameter for training, whose gradients cost no more than the part is large."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_in_place = False
# torch wants gradients as dense as their parameters. A view is not, and costs less than a gradient that is.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")


@contextlib.contextmanager
def gradients_in_place(enabled: bool = True) -> Iterator[None]:
    """Let the backward pass of what runs in this context add the gradients of parts to ``.grad`` of the whole in place.

    A part of a parameter has a gradient of the parameter's size otherwise, filled with zeros, which is added to
    ``.grad``: three passes over all weights of a supernet for each subnet of a step. Here the part is a leaf of its
    own whose ``.grad`` is a view of the parameter's. The sums are the same, bit by bit.

    It applies to parameters that have a gradient already, and no hooks. It must not be used where something waits for
    the gradient of the parameter itself: ``torch.autograd.grad``, and the pass in which DDP exchanges gradients.
    """
    global _in_place
    before, _in_place = _in_place, enabled
    try:
        yield
    finally:
        _in_place = before


def part_of(tensor: Tensor, view: Callable[[Tensor], Tensor]) -> Tensor:
    """``view(tensor)``, a view, for training; see :func:`gradients_in_place`."""
    gradient = tensor.grad if _in_place and tensor.is_leaf and torch.is_grad_enabled() else None
    if gradient is None or tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
        return view(tensor)
    part = view(tensor.detach()).requires_grad_()
    part.grad = view(gradient)
    return part


def prefix_view(tensor: Tensor, *sizes: int) -> Tensor:
    """``tensor[: sizes[0], : sizes[1], …]`` for training: a view whose gradient is cheap.

    Each sliced axis would add a node to the backward pass that allocates and fills a tensor of the full size. This adds
    one node, whose gradient has the strides of ``tensor`` (``channels_last`` weights keep theirs), or none if all sizes
    are full, or where gradients are added in place.
    """
    shape = (*sizes, *tensor.shape[len(sizes) :])
    if shape == tensor.shape:
        return tensor
    return part_of(tensor, lambda whole: whole.as_strided(shape, whole.stride()))
