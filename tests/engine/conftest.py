from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch

from pss_razor.engine.launch import build_runner, load_config

TINY = Path(__file__).with_name("tiny_supernet.py")
_names = itertools.count()


@pytest.fixture(scope="session")
def make_runner():
    """``make_runner(work_dir, {key: value})``: a runner of the tiny config, or of the one given as third argument.

    A key with dots is merged into the config, one without replaces what is there.
    """

    def make(work_dir, options=None, path=TINY):
        config = load_config(str(path), None, "none", str(work_dir))
        # mmengine calls a run after the second in which it starts, and keeps logs and histories of runs by that name.
        config.experiment_name = f"test_{next(_names)}"
        for key, value in (options or {}).items():
            if "." in key:
                config.merge_from_dict({key: value})
            else:
                config[key] = value
        return build_runner(config)

    return make


@pytest.fixture(scope="session")
def get_sampler():
    """The sampler, with the pools, of a runner that has started."""
    return lambda runner: next(hook.sampler for hook in runner.hooks if hasattr(hook, "sampler"))


@pytest.fixture(scope="session")
def straight(make_runner, tmp_path_factory):
    """The work directory of a training that was never stopped, with the checkpoint of every epoch."""
    work_dir = tmp_path_factory.mktemp("straight")
    make_runner(work_dir).train()
    return work_dir


@pytest.fixture(scope="session")
def _tested(make_runner, straight, tmp_path_factory):
    runner = make_runner(tmp_path_factory.mktemp("tested"), {"load_from": str(straight / "epoch_3.pth")})
    runner.test()
    return runner


@pytest.fixture
def tested(_tested, get_sampler):
    """A runner that has the trained weights and pools and has evaluated them; shared, and mended after each test."""
    algorithm, sampler = _tested.model, get_sampler(_tested)
    before = copy.deepcopy((algorithm.state_dict(), sampler.state_dict()))
    capacities = [pool.capacity for pool in sampler.pools.values()]
    yield _tested
    for pool, capacity in zip(sampler.pools.values(), capacities, strict=True):
        pool.capacity = capacity
    sampler.load_state_dict(before[1])
    algorithm.load_state_dict(before[0])
    algorithm.mutator.activate(algorithm.space.largest)
    algorithm.eval()


@pytest.fixture(scope="session")
def assert_same():
    """Compare nested containers, bit by bit; the path of the first difference is in the message."""

    def compare(a, b, path="") -> None:
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), path
        elif isinstance(a, dict):
            assert list(a) == list(b), path
            for key in a:
                compare(a[key], b[key], f"{path}/{key}")
        elif isinstance(a, (list, tuple)):
            assert type(a) is type(b) and len(a) == len(b), path
            for index, items in enumerate(zip(a, b, strict=True)):
                compare(*items, f"{path}/{index}")
        else:
            assert type(a) is type(b) and a == b, f"{path}: {a} != {b}"

    return compare


@pytest.fixture(scope="session")
def assert_same_training(assert_same):
    """Compare two checkpoints: weights, BN statistics, optimizer, learning rate, pools, sampler and random states.

    ``message_hub`` is left out: it holds times.
    """

    def compare(path_a, path_b) -> None:
        a, b = (torch.load(path, weights_only=True) for path in (path_a, path_b))
        parts = ("state_dict", "optimizer", "param_schedulers", "pss")
        assert a["meta"]["epoch"] == b["meta"]["epoch"] and a["meta"]["iter"] == b["meta"]["iter"]
        assert_same({part: a[part] for part in parts}, {part: b[part] for part in parts})

    return compare
