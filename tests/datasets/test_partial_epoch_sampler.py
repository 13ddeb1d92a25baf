from __future__ import annotations

from itertools import chain

import pytest

import pss_razor.plugin  # noqa: F401
from pss_razor.core import ConfigError
from pss_razor.datasets import PartialEpochSampler
from pss_razor.registry import DATA_SAMPLERS

from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook


def epochs(sampler, numbers):
    drawn = []
    for number in numbers:
        sampler.set_epoch(number)
        drawn.append(list(sampler))
        assert len(drawn[-1]) == len(sampler)
    return drawn


def flat(parts):
    return list(chain.from_iterable(parts))


@pytest.fixture
def as_rank(monkeypatch):
    def build(rank, world_size, **arguments):
        monkeypatch.setattr("pss_razor.datasets.partial_epoch_sampler.get_dist_info", lambda: (rank, world_size))
        return PartialEpochSampler(**arguments)

    return build


@pytest.mark.parametrize("num_samples", [1, 3, 10, 25])
def test_every_image_is_seen_once_before_any_is_seen_twice(num_samples):
    sampler = PartialEpochSampler(range(10), num_samples, seed=3)
    drawn = flat(epochs(sampler, range(60 // num_samples + 1)))
    rounds = [drawn[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(images) == list(range(10)) for images in rounds)
    assert len({tuple(images) for images in rounds}) == 6, "each time in another order"


def test_a_whole_epoch_is_that_of_the_default_sampler():
    ours, theirs = PartialEpochSampler(range(20), 20, seed=5), DefaultSampler(range(20), seed=5)
    assert epochs(ours, range(3)) == epochs(theirs, range(3))


def test_goes_on_at_any_epoch():
    whole = epochs(PartialEpochSampler(range(10), 4, seed=1), range(8))
    resumed = PartialEpochSampler(range(10), 4, seed=99)
    resumed.seed = 1  # as RandomStateHook does
    assert epochs(resumed, range(5, 8)) == whole[5:]
    assert epochs(resumed, [6, 6]) == [whole[6], whole[6]], "the epoch alone decides"


def test_seed_decides():
    first, second = (epochs(PartialEpochSampler(range(50), 20, seed=seed), range(3)) for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_are_together_one(as_rank, world_size):
    parts = [
        epochs(as_rank(rank, world_size, dataset=range(50), num_samples=18, seed=2), range(6))
        for rank in range(world_size)
    ]
    one = epochs(as_rank(0, 1, dataset=range(50), num_samples=18, seed=2), range(6))
    for epoch, wanted in enumerate(one):
        own = [part[epoch] for part in parts]
        assert [image for step in zip(*own, strict=True) for image in step] == wanted
        assert len(set(flat(own))) == 18 or epoch in (2, 5), "disjoint, but where a new order begins"


def test_rounds_up_to_the_processes(as_rank):
    samplers = [as_rank(rank, 4, dataset=range(50), num_samples=18, seed=2) for rank in range(4)]
    assert {len(sampler) for sampler in samplers} == {5}
    drawn = flat(part for sampler in samplers for part in epochs(sampler, [0, 1]))
    assert len(set(drawn)) == 40, "epochs of 20 follow each other without a gap"


def test_without_shuffling_the_order_repeats():
    assert epochs(PartialEpochSampler(range(5), 3, shuffle=False), range(3)) == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_built_from_a_config():
    built = DATA_SAMPLERS.build(
        dict(type="PartialEpochSampler", num_samples=4), default_args=dict(dataset=range(9), seed=7)
    )
    assert type(built) is PartialEpochSampler and built.seed == 7 and len(built) == 4


@pytest.mark.parametrize(("images", "num_samples"), [(10, 0), (0, 4)])
def test_nothing_to_draw(images, num_samples):
    with pytest.raises(ConfigError, match="must both be at least 1"):
        PartialEpochSampler(range(images), num_samples)


class Images(Hook):
    """Which images every epoch had, by their index in the dataset."""

    def __init__(self):
        self.epochs = []

    def before_train_epoch(self, runner):
        self.epochs.append(list(runner.train_dataloader.sampler))


def test_a_resumed_training_goes_on_in_the_same_order(make_runner, tmp_path, assert_same_training):
    """96 images in epochs of 48: the third is the first half of the second order."""
    options = {
        "train_dataloader.sampler": dict(_delete_=True, type="PartialEpochSampler", num_samples=48),
        "val_cfg": None,
        "val_dataloader": None,
        "val_evaluator": None,
    }
    hooks = [Images(), Images()]
    whole = make_runner(tmp_path / "whole", options)
    whole.register_hook(hooks[0])
    whole.train()
    assert whole.iter == 9
    first, second, third = hooks[0].epochs
    assert sorted(first + second) == list(range(96)) and sorted(third) != sorted(first)

    resume = {"load_from": str(tmp_path / "whole" / "epoch_2.pth"), "resume": True, "randomness.seed": 7}
    resumed = make_runner(tmp_path / "resumed", {**options, **resume})
    resumed.register_hook(hooks[1])
    resumed.train()
    assert hooks[1].epochs == [third]
    assert_same_training(tmp_path / "whole" / "epoch_3.pth", tmp_path / "resumed" / "epoch_3.pth")
