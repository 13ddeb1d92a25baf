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
    if not _in_place or tensor.grad is None or not _adds_in_place(tensor):
        return view(tensor)
    part = view(tensor.detach()).requires_grad_()
    part.grad = view(tensor.grad)
    return part


def _adds_in_place(tensor: Tensor) -> bool:
    hooked = tensor._backward_hooks or tensor._post_accumulate_grad_hooks
    return not hooked and tensor.is_leaf and torch.is_grad_enabled()


def prefix_view(tensor: Tensor, *sizes: int) -> Tensor:
    """``tensor[: sizes[0], : sizes[1], …]`` for training: a view whose gradient is cheap.

    Each sliced axis would add a node to the backward pass that allocates and fills a tensor of the full size. This adds
    one node, whose gradient has the strides of ``tensor`` (``channels_last`` weights keep theirs), or none if all sizes
    are full, or where gradients are added in place.
    """
    full = tensor.shape
    if sizes == full[: len(sizes)]:
        return tensor
    shape = (*sizes, *full[len(sizes) :])
    return part_of(tensor, lambda whole: whole.as_strided(shape, whole.stride()))


def dense(part: Tensor) -> Tensor:
    """A conv's weight (out, in, …) without gaps in memory, in the memory format that it has.

    A conv copies a weight that has gaps, once in its forward pass and twice in its backward pass; this copies it once.
    """
    is_channels_last = part.dim() == 4 and part.stride(3) > 1
    return part.contiguous(memory_format=torch.channels_last if is_channels_last else torch.contiguous_format)
