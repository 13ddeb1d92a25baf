"""Order the channels of every group by importance, without changing what a network computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pss_razor.conversion.groups import Axis, ChannelGroup
from pss_razor.conversion.trace import evaluating
from pss_razor.core import ConfigError

# A tensor, one of its axes, and how that is made up.
CutTensor = tuple[Tensor, int, Axis]
# Images (N, C, H, W) and labels (N,).
Batch = tuple[Tensor, Tensor]
# Of each position of an axis, a number; and the axis.
_Scores = list[tuple[Tensor, Axis]]
SORTS = ("l1", "bn", "taylor")


def check_sort(sort: str | None, batches: Iterable[Batch] | None) -> None:
    """Raise ``ConfigError`` where an order is not known, or has not what it needs."""
    if sort is not None and sort not in SORTS:
        raise ConfigError(f"sort = {sort!r} is not known; choose from {SORTS}, or None")
    if sort == "taylor" and batches is None:
        raise ConfigError(
            "sort = 'taylor' needs batches = [(images, labels), …] for its gradients: give them to pss_razor.convert. "
            "A config has none; sort by 'l1' or 'bn' there"
        )
    if sort != "taylor" and batches is not None:
        raise ConfigError(f"batches are used by sort = 'taylor' alone, and sort = {sort!r}; leave them out")


def sort_channels(
    network: nn.Module,
    tensors: Sequence[CutTensor],
    groups: Iterable[ChannelGroup],
    sort: str,
    norms: Sequence[CutTensor],
    batches: Iterable[Batch] = (),
) -> None:
    """Permute every tensor that a group touches, so that its most important channels come first.

    Args:
        network: Returns logits (N, classes) of images.
        tensors: Every tensor of the network and axis of it that is made up of groups.
        groups: The groups to sort.
        sort: ``"l1"``: by the sum of the absolute weights that make a channel; ``"bn"``: by the absolute weights of the
            norms that it passes (by ``"l1"`` where it passes none); ``"taylor"``: by how much the cross-entropy changes
            without it, to first order: the square of the sum of weight × gradient, summed over the weights of every
            layer that makes or takes it and over the batches (the group contribution of Molchanov et al., "Importance
            Estimation for Neural Network Pruning", CVPR 2019).
        norms: Those of ``tensors`` that are weights of norms.
        batches: What ``"taylor"`` computes gradients on.
    """
    producers = [own for own in tensors if own[1] == 0 and own[0].dim() > 1]
    weights = [own for own in tensors if own[0].dim() > 1]
    candidates = {
        "l1": lambda: [_absolute(producers)],
        "bn": lambda: [_absolute(norms), _absolute(producers)],
        "taylor": lambda: [_contributions(network, weights, batches)],
    }[sort]()
    for group in groups:
        score = next((own for scores in candidates if (own := _score(group, scores, sort)) is not None), None)
        touched = [(tensor, axis, made) for tensor, axis, made in tensors if group in made.groups]
        if score is not None and _can_sort(group, [made for _, _, made in touched]):
            order = score.argsort(descending=True, stable=True).cpu().numpy()
            for tensor, axis, made in touched:
                _permute(tensor, axis, made.positions(group), order)


def _absolute(tensors: Sequence[CutTensor]) -> _Scores:
    return [(_total(tensor.detach().abs(), axis), made) for tensor, axis, made in tensors]


def _contributions(network: nn.Module, tensors: Sequence[CutTensor], batches: Iterable[Batch]) -> _Scores:
    """Sums of weight × gradient, for each batch; the network is in evaluation mode, and no gradient is left behind."""
    leaves = list({id(tensor): tensor for tensor, _, _ in tensors}.values())
    required = [tensor.requires_grad for tensor in leaves]
    scores: _Scores = []
    try:
        for tensor in leaves:
            tensor.requires_grad_()
        with evaluating(network), torch.enable_grad():
            for images, labels in batches:
                loss = F.cross_entropy(network(images), labels)
                gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
                products = {id(own): (own * grad).detach() for own, grad in zip(leaves, gradients, strict=True)}
                scores += [(_total(products[id(tensor)], axis), made) for tensor, axis, made in tensors]
    finally:
        for tensor, before in zip(leaves, required, strict=True):
            tensor.requires_grad_(before)
    if not scores:
        raise ConfigError("sort = 'taylor' was given no batch; give batches = [(images, labels), …]")
    return scores


def _total(values: Tensor, axis: int) -> Tensor:
    """Sums over all other axes."""
    return values.double().movedim(axis, 0).reshape(values.shape[axis], -1).sum(1)


def _score(group: ChannelGroup, scores: _Scores, sort: str) -> Tensor | None:
    """Importance of each unit of a group; None if nothing tells."""
    total = None
    for values, made in scores:
        if group in made.groups:
            own = values[torch.from_numpy(made.positions(group)).to(values.device)].sum(1)
            own = own**2 if sort == "taylor" else own
            total = own if total is None else total + own
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
    with torch.no_grad():
        tensor.index_copy_(axis, target, tensor.index_select(axis, source))
