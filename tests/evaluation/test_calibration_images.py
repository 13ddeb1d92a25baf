from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pss_razor.evaluation import calibration_images
from pss_razor.evaluation.calibration_images import load_calibration_batches
from pss_razor.evaluation.random_state import get_random_state

from mmengine.dataset import DefaultSampler


class Noisy:
    """Number and random numbers of each image, as an augmentation draws them."""

    def __init__(self, size=100):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()).item(), np.random.random()])


def loader_of(rank, world_size, workers, dataset=None):
    """The training images of one of several processes, as mmengine deals them."""
    dataset = dataset or Noisy()
    sampler = DefaultSampler(dataset, shuffle=True, seed=3)
    sampler.rank, sampler.world_size = rank, world_size
    sampler.num_samples = len(dataset) // world_size

    def seed_of_rank(worker):
        torch.manual_seed(1000 * rank + worker)

    return DataLoader(dataset, 8, sampler=sampler, num_workers=workers, worker_init_fn=seed_of_rank)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_process_of_any_number_has_the_same_images(workers):
    alone = torch.stack(load_calibration_batches(loader_of(0, 1, workers), 3))
    assert alone.shape == (3, 8, 3)
    assert len(set(alone[..., 0].flatten().tolist())) == 24  # distinct, and not the first of the dataset
    assert set(alone[..., 0].flatten().tolist()) != set(range(24))
    for rank in range(4):
        torch.manual_seed(rank)  # the random state of the process is of no matter
        assert torch.equal(torch.stack(load_calibration_batches(loader_of(rank, 4, workers), 3)), alone)


def test_random_states_stay(assert_same):
    before = get_random_state()
    load_calibration_batches(loader_of(0, 1, 0), 2)
    assert_same(before, get_random_state())


def test_fewer_images_than_stated_are_reported(monkeypatch):
    logged = []
    monkeypatch.setattr(calibration_images, "print_log", lambda message, **kwargs: logged.append((message, kwargs)))
    batches = load_calibration_batches(loader_of(0, 1, 0, Noisy(20)), 9)
    assert [len(batch) for batch in batches] == [8, 8]
    ((message, options),) = logged
    assert options["level"] == logging.WARNING
    assert "2 batches" in message and "calibration_batches = 9" in message
    (batch,) = load_calibration_batches(loader_of(0, 1, 0, Noisy(5)), 1)
    assert len(batch) == 5
