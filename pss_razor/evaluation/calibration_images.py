"""Which training images calibrate BN."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch.utils.data import DataLoader

from pss_razor.evaluation.random_state import isolated_random_state

from mmengine.logging import print_log

_SEED = 0


def load_calibration_batches(dataloader: DataLoader, count: int) -> list[Any]:
    """The batches that BN statistics are averaged over, as the loader makes them: 8-bit images on the host.

    Images, their order and their augmentation follow from a fixed seed and the batch size. They are the same in every
    process and for any number of processes, so that a test on eight GPUs, one on one, and an export see the same
    statistics; and reading them changes no random state.

    Args:
        dataloader: The training images; its batch size is that of one process.
        count: How many batches; fewer where there are fewer images, with a warning.
    """
    of_batch_sampler: int = getattr(dataloader.batch_sampler, "batch_size", 1)
    batch_size = dataloader.batch_size or of_batch_sampler
    size = len(dataloader.dataset)  # type: ignore[arg-type]
    available = max(1, size // batch_size)
    if available < count:
        print_log(
            f"BN is calibrated on {available} batches, all that train_dataloader has, instead of "
            f"calibration_batches = {count}",
            logger="current",
            level=logging.WARNING,
        )
    order = torch.randperm(size, generator=torch.Generator().manual_seed(_SEED)).tolist()
    return read_batches(dataloader, order[: min(available, count) * batch_size], batch_size, _SEED)


def read_batches(dataloader: DataLoader, rows: list[int], batch_size: int, seed: int) -> list[Any]:
    """Batches of some images of a data loader's dataset, in the given order; changes no random state.

    Args:
        dataloader: Its dataset, workers and collation are used.
        rows: Which images.
        batch_size: Images of a batch.
        seed: Of the images' augmentation.
    """
    with isolated_random_state(seed):
        # Without the loader's worker_init_fn, which gives each process images of its own.
        return list(
            DataLoader(
                dataloader.dataset,
                batch_size,
                sampler=rows,
                num_workers=dataloader.num_workers,
                collate_fn=dataloader.collate_fn,
            )
        )
