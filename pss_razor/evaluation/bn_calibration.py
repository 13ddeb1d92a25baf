"""Batch-norm statistics of a subnet: estimated on training batches, since shared running averages fit no subnet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.conversion.trace import evaluating

BNStatistics = list[tuple[Tensor, Tensor]]


def calibrate_bn(model: nn.Module, batches: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Replace the running statistics of the active subnet by the plain average over ``batches`` (PSS-Net, section 4).

    Only BN is in training mode: its batch statistics are what is estimated, whereas dropout would disturb them. A model
    without BN is not run.

    Args:
        model: Its active subnet is calibrated; other modules keep their mode.
        batches: Training batches, each passed to ``forward``; see
            :func:`~pss_razor.evaluation.calibration_images.load_calibration_batches`.
        forward: Runs the active subnet on one batch.
    """
    norms = _tracking_norms(model)
    if not norms:
        return
    momenta = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.reset_running_stats()
    try:
        with normalised_by_batches(model), torch.no_grad():
            for index, batch in enumerate(batches):
                for norm in norms:
                    # Cumulative average. None would give the same, but torch would read the count off the device.
                    norm.momentum = 1 / (index + 1)
                forward(batch)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum


@contextlib.contextmanager
def normalised_by_batches(model: nn.Module) -> Iterator[None]:
    """BN in training mode, so that a batch is normalised by its own statistics, and all else in evaluation mode."""
    with evaluating(model):
        for norm in _tracking_norms(model):
            norm.train()
        yield


def get_bn_statistics(model: nn.Module) -> BNStatistics:
    """Copies of running mean and variance of the active channels, one pair for each BN layer.

    They are views of one tensor. Many small tensors that outlive large ones would fragment the C library's memory: on a
    CPU, several megabytes were lost for each subnet.
    """
    pairs = _active_statistics(model)
    if not pairs:
        return []
    copies = torch.cat([tensor for pair in pairs for tensor in pair]).split([len(t) for pair in pairs for t in pair])
    return list(zip(copies[::2], copies[1::2], strict=True))


def set_bn_statistics(model: nn.Module, statistics: BNStatistics) -> None:
    """Put back what :func:`get_bn_statistics` returned for the subnet that is active now."""
    norms: list[Any] = _tracking_norms(model)
    for norm, views, values in zip(norms, _active_statistics(model), statistics, strict=True):
        if hasattr(norm, "set_statistics"):  # its active channels are not always one view
            norm.set_statistics(*values)
            continue
        for view, value in zip(views, values, strict=True):
            view.copy_(value)


@contextlib.contextmanager
def isolated_bn_statistics(model: nn.Module) -> Iterator[None]:
    """Leave all BN statistics as they were after the body."""
    norms = _tracking_norms(model)
    names = ("running_mean", "running_var", "num_batches_tracked")
    saved = [[getattr(norm, name).clone() for name in names] for norm in norms]
    try:
        yield
    finally:
        for norm, tensors in zip(norms, saved, strict=True):
            for name, tensor in zip(names, tensors, strict=True):
                getattr(norm, name).copy_(tensor)


def _tracking_norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def _active_statistics(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Views of the running mean and variance of the active channels; a dynamic BN slices them itself."""
    norms: list[Any] = _tracking_norms(model)
    return [
        n.get_dynamic_params()[:2] if hasattr(n, "get_dynamic_params") else (n.running_mean, n.running_var)
        for n in norms
    ]
