"""Losses are read when they are logged, and are those that mmengine's own hook logs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from pss_razor.engine.hooks import DeferredRuntimeInfoHook

from mmengine.logging import MessageHub


def scalars(runner):
    """All that was logged, by name."""
    return {
        name: list(buffer._log_history)
        for name, buffer in runner.message_hub.log_scalars.items()
        if name.startswith("train/") and not name.endswith("time")
    }


@pytest.fixture(scope="module")
def runs(make_runner, tmp_path_factory):
    made = {}
    for kind in ("RuntimeInfoHook", "DeferredRuntimeInfoHook"):
        options = {
            "default_hooks.runtime_info": dict(type=kind),
            "default_hooks.logger": dict(type="LoggerHook", interval=3),
            "train_cfg.max_epochs": 2,
            "train_cfg.val_interval": 2,
        }
        made[kind] = make_runner(tmp_path_factory.mktemp(kind), options)
        made[kind].train()
    return made


def test_the_same_logs(runs):
    first, second = (scalars(run) for run in runs.values())
    assert first.keys() == second.keys()
    assert len(first["train/loss"]) == runs["RuntimeInfoHook"].iter
    for name in first:
        assert first[name] == second[name], name


def test_nothing_is_left_unread(runs):
    hook = next(hook for hook in runs["DeferredRuntimeInfoHook"].hooks if isinstance(hook, DeferredRuntimeInfoHook))
    assert not hook._unread


def test_reads_at_the_loggers_interval_only(make_runner, tmp_path, monkeypatch):
    reads = []
    read = DeferredRuntimeInfoHook._read

    def spy(self, runner):
        if self._unread:
            reads.append((runner.iter, len(self._unread)))
        read(self, runner)

    monkeypatch.setattr(DeferredRuntimeInfoHook, "_read", spy)
    options = {
        "default_hooks.runtime_info": dict(type="DeferredRuntimeInfoHook"),
        "default_hooks.logger": dict(type="LoggerHook", interval=3),
        "train_cfg.max_epochs": 1,
    }
    runner = make_runner(tmp_path, options)
    runner.train()
    length = len(runner.train_dataloader)
    assert sum(count for _, count in reads) == length
    assert len(reads) == length // 3 + (length % 3 > 0)


def test_a_score_is_read_when_its_pool_is_needed():
    """Updates wait; a look at the pool applies them in their order, and what is not finite shows then."""
    from pss_razor.core import Subnet, TrainingDivergedError
    from pss_razor.core.pss.pool import PrioritizedPool

    read = []

    def later(value):
        return lambda: read.append(value) or float(torch.tensor(value))

    pool = PrioritizedPool(2)
    a, b, c = (Subnet({"x": value}) for value in (1, 2, 3))
    for subnet, value in ((a, -1.0), (b, -3.0), (c, -2.0), (a, -5.0)):
        pool.update(subnet, later(value), 7.0)
    assert read == []
    assert {entry.subnet: entry.score for entry in pool} == {a: pytest.approx(-1.4), c: -2.0}
    assert read == [-1.0, -3.0, -2.0, -5.0]
    pool.update(b, later(float("nan")), 7.0)
    with pytest.raises(TrainingDivergedError, match="diverged"):
        len(pool)


def test_numbers_of_the_host_among_tensors_of_a_device(monkeypatch):
    """On fake CUDA tensors: only what is on one device is stacked, and one transfer a device brings all values."""
    transfers = []

    def transfer(self):
        transfers.append((self.device.type, len(self)))
        return [float(10 * len(transfers) + index) for index in range(len(self))]

    monkeypatch.setattr(FakeTensor, "tolist", transfer)
    hub = MessageHub("test_mixed_devices")
    runner = SimpleNamespace(message_hub=hub)
    hook = DeferredRuntimeInfoHook()
    with FakeTensorMode():
        for step in range(2):
            hook._unread.append(
                {
                    "loss": torch.ones((), device="cuda", requires_grad=True),
                    "rho": 0.5 + step,
                    "score": torch.ones((), device="cuda"),
                    "count": np.int64(3),
                    "host": torch.ones(()),
                }
            )
        hook._read(runner)
    assert transfers == [("cuda", 4), ("cpu", 2)]
    logged = {name: list(buffer._log_history) for name, buffer in hub.log_scalars.items()}
    assert logged == {
        "train/loss": [10.0, 12.0],
        "train/rho": [0.5, 1.5],
        "train/score": [11.0, 13.0],
        "train/count": [3, 3],
        "train/host": [20.0, 21.0],
    }
