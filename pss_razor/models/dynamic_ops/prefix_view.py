"""The first channels of a tensor."""

from __future__ import annotations

from torch import Tensor


def prefix_view(tensor: Tensor, *sizes: int) -> Tensor:
    """``tensor[: sizes[0], : sizes[1], …]`` for training: a view whose gradient is cheap.

    Each sliced axis would add a node to the backward pass that allocates and fills a tensor of the full size. This adds
    one node, whose gradient has the strides of ``tensor`` (``channels_last`` weights keep theirs), or none if all sizes
    are full.
    """
    shape = (*sizes, *tensor.shape[len(sizes) :])
    return tensor if shape == tensor.shape else tensor.as_strided(shape, tensor.stride())
