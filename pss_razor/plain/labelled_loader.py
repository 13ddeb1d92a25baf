"""What a data loader of plain PyTorch must be, checked before any long work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from pss_razor.conversion import Supernet
from pss_razor.core import ConfigError, DataError
from pss_razor.evaluation.checks import first_image
from pss_razor.evaluation.random_state import isolated_random_state


def check_labelled_loader(supernet: Supernet, loader: Any, name: str, processes: int = 1) -> None:
    """Look at a loader and its first image, without starting its workers.

    Args:
        supernet: What the images are for.
        loader: Yields images and labels.
        name: Its name, for errors.
        processes: Of the training.

    Raises:
        ConfigError: It is of another kind, or its images are.
        DataError: It has no batch, or labels that are no classes.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = "DataLoader of an iterable dataset" if isinstance(loader, DataLoader) else type(loader).__name__
        raise ConfigError(
            f"{name} is a {kind}; give a torch.utils.data.DataLoader of a dataset that has a length: BN is calibrated "
            "on images that are chosen from it"
        )
    if loader.batch_sampler is None:
        raise ConfigError(f"{name} has batch_size=None; let the loader make the batches, DataLoader(…, batch_size=64)")
    if len(loader) == 0:
        raise DataError(
            f"{name} yields no batch: it has {len(loader.dataset)} images, batch_size is {loader.batch_size} and "  # type: ignore[arg-type]
            f"drop_last is {loader.drop_last}; lower the batch size"
        )
    sampler = sampler_of(loader)
    if processes > 1 and getattr(sampler, "num_replicas", getattr(sampler, "world_size", 1)) != processes:
        raise ConfigError(
            f"{name} gives all {processes} processes all images; make it with "
            "sampler=torch.utils.data.distributed.DistributedSampler(dataset)"
        )
    with isolated_random_state(0):  # transforms draw random numbers
        batch = first_image(loader)
    if isinstance(batch, Mapping) or not isinstance(batch, list | tuple) or len(batch) != 2:
        got = f"a {type(batch).__name__}" + (f" with {sorted(map(str, batch))}" if isinstance(batch, Mapping) else "")
        raise ConfigError(f"{name} yields {got}; make it yield (images, labels), by the dataset or by collate_fn")
    _check_images(supernet, batch[0], name)
    _check_labels(supernet, batch[1], loader, name)


def check_last_batch(loader: DataLoader, name: str) -> None:
    """Check that no training batch has a single image.

    Raises:
        ConfigError: One has, and BN cannot normalise by it.
    """
    batch_size = batch_size_of(loader)
    rest = 0 if getattr(loader.batch_sampler, "drop_last", False) else len(sampler_of(loader)) % batch_size
    if (rest or batch_size) == 1:
        raise ConfigError(
            f"{name}: the last batch of {len(loader)} has one image, whose statistics BN cannot use; give the loader "
            "drop_last=True, and a batch_size above 1"
        )


def batch_size_of(loader: DataLoader) -> int:
    """Images of a batch, in this process.

    Raises:
        ConfigError: A batch sampler of one's own does not say.
    """
    batch_size = getattr(loader.batch_sampler, "batch_size", None)
    if type(batch_size) is not int:
        raise ConfigError(
            f"the {type(loader.batch_sampler).__name__} of a loader has no batch_size, by which the learning rate and "
            "BN's calibration go; give it this attribute"
        )
    return batch_size


def sampler_of(loader: DataLoader) -> Any:
    """What orders the images: a sampler, also inside of a batch sampler."""
    return getattr(loader.batch_sampler, "sampler", loader.sampler)


def _check_images(supernet: Supernet, images: Any, name: str) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = f"a tensor of {images.dtype}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise ConfigError(
            f"{name}: the images are {kind}; the network takes floats, normalised: end the transforms with ToTensor() "
            "and Normalize(mean, std)"
        )
    if tuple(images.shape[1:]) != supernet.image_shape:
        raise ConfigError(
            f"{name}: its images are {tuple(images.shape[1:])} (C, H, W), the supernet was converted for "
            f"{supernet.image_shape}; resize them in the transforms, or convert with images like these: the supernet "
            "makes smaller resolutions by itself"
        )


def _check_labels(supernet: Supernet, labels: Any, loader: DataLoader, name: str) -> None:
    classes = supernet.num_outputs
    shape = tuple(labels.shape) if isinstance(labels, Tensor) else None
    if shape is None or shape[1:] != ((classes,) if labels.is_floating_point() else ()):
        raise ConfigError(
            f"{name}: the labels are {type(labels).__name__ if shape is None else f'{labels.dtype} {shape}'}; they "
            f"must be whole numbers (N,), or class probabilities (N, {classes})"
        )
    dataset: Any = loader.dataset
    # What torchvision's datasets know of all images; other labels are looked at as they come.
    targets = getattr(dataset, "targets", None)
    if labels.is_floating_point() or targets is None or getattr(dataset, "target_transform", None) is not None:
        return
    known = torch.as_tensor(targets)
    if known.dim() == 1 and len(known) and (int(known.min()) < 0 or int(known.max()) >= classes):
        raise DataError(
            f"{name}: its labels are {int(known.min())} to {int(known.max())}, the network has {classes} outputs; "
            f"convert a network with {int(known.max()) + 1} outputs, or number the classes from 0"
        )
