"""The first channels of a tensor."""

from __future__ import annotations

from torch import Tensor


def prefix_view(tensor: Tensor, *sizes: int) -> Tensor:
    """``tensor[: sizes[0], : sizes[1], …]`` for training: a view whose gradient is cheap.

    A slice of every axis would be a node of its own in the backward pass, which allocates and fills a tensor of the
    full size. This is one node, its gradient has the strides of ``tensor`` (``channels_last`` weights keep theirs), and
    none where all sizes are full.
    """
    shape = (*sizes, *tensor.shape[len(sizes) :])
    return tensor if shape == tensor.shape else tensor.as_strided(shape, tensor.stride())
