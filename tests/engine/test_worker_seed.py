"""What data loader workers draw: of their own on every rank, in every worker and epoch; the same after a resume."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from pss_razor.evaluation.random_state import get_random_state, set_random_state

from mmengine.runner import Runner

IMAGES, WORKERS = 12, 2


class Draws(torch.utils.data.Dataset):
    """What an augmentation of each image could draw, from the three generators that there are."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return np.array([index, random.getrandbits(32), np.random.randint(2**32), torch.randint(2**32, ()).item()])


def build_loader():
    return Runner.build_dataloader(
        dict(
            dataset=Draws(),
            batch_size=2,
            num_workers=WORKERS,
            persistent_workers=False,
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="default_collate"),
            worker_init_fn=dict(type="epoch_worker_seed"),
        ),
        seed=0,
    )


def run_epochs(monkeypatch, rank, epochs, state=None):
    """Draws (epochs, images, generators) of a rank, and the random state after the first epoch.

    All ranks start from one seed, as mmengine's do.
    """
    monkeypatch.setenv("RANK", str(rank))
    torch.manual_seed(0)
    if state is not None:
        set_random_state(state)
    loader = build_loader()
    drawn, states = [], []
    for _ in range(epochs):
        drawn.append(torch.cat(list(loader)).numpy()[:, 1:])
        states.append(get_random_state())
    return np.stack(drawn), states[0]


@pytest.fixture(scope="module")
def drawn():
    with pytest.MonkeyPatch.context() as monkeypatch:
        return {rank: run_epochs(monkeypatch, rank, epochs=2)[0] for rank in range(3)}


@pytest.mark.parametrize("generator", range(3), ids=["random", "numpy", "torch"])
def test_ranks_workers_and_epochs_draw_numbers_of_their_own(drawn, generator):
    every = np.concatenate([numbers[:, :, generator].ravel() for numbers in drawn.values()])
    assert len(every) == 3 * 2 * IMAGES
    assert len(np.unique(every)) == len(every)


def test_ranks_are_not_shifts_of_each_other(drawn):
    """A seed that is a sum of rank and worker would give worker 1 of rank 0 what worker 0 of rank 1 has."""
    for one, other in itertools.combinations(drawn.values(), 2):
        assert not np.isin(one, other).any()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_resumed_epoch_draws_the_same(monkeypatch, rank):
    straight, state = run_epochs(monkeypatch, rank, epochs=2)
    resumed, _ = run_epochs(monkeypatch, rank, epochs=1, state=state)
    np.testing.assert_array_equal(resumed[0], straight[1])
