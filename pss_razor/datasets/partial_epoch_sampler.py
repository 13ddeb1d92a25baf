"""Short epochs on a large dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from pss_razor.core import ConfigError
from pss_razor.registry import DATA_SAMPLERS

from mmengine.dist import get_dist_info, sync_random_seed


@DATA_SAMPLERS.register_module()
class PartialEpochSampler(Sampler):
    """An epoch is the next ``num_samples`` images of a shuffled order over the whole dataset.

    Orders follow each other, so that every image is seen once before any is seen twice. They depend on the seed and
    the epoch alone: a training that is resumed at an epoch goes on where it stopped, and the batches of several
    processes are together those of one.

    Args:
        dataset: The dataset.
        num_samples: Images of an epoch, of all processes together; rounded up to a multiple of their number.
        shuffle: Whether to shuffle; otherwise the order of the dataset repeats.
        seed: Seed of the orders, the same in all processes; None draws one.

    Raises:
        ConfigError: ``num_samples`` is not positive, or the dataset is empty.

    Example:
        ``train_dataloader=dict(sampler=dict(type='PartialEpochSampler', num_samples=3200), …)``
    """

    def __init__(self, dataset: Sized, num_samples: int, shuffle: bool = True, seed: int | None = None) -> None:
        if num_samples < 1 or len(dataset) < 1:
            raise ConfigError(
                f"num_samples = {num_samples} of a dataset of {len(dataset)} images must both be at least 1"
            )
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.num_samples = math.ceil(num_samples / self.world_size)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        """This process' indices of the epoch."""
        size, of_all = len(self.dataset), self.num_samples * self.world_size
        start = self.epoch * of_all
        end = start + of_all
        orders = range(start // size, (end - 1) // size + 1)
        indices = torch.cat([self._order(number) for number in orders])
        offset = orders[0] * size
        return iter(indices[start - offset : end - offset][self.rank :: self.world_size].tolist())

    def _order(self, number: int) -> torch.Tensor:
        """One order of the whole dataset."""
        if not self.shuffle:
            return torch.arange(len(self.dataset))
        return torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(self.seed + number))

    def __len__(self) -> int:
        """Number of this process' indices."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch
