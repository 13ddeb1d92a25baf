"""Whole trainings and evaluations on a GPU that is not there: where does the host wait for the device, and is anything
on the wrong one? ``fake_cuda.py`` says what this finds and what it misses.

A wait in every iteration leaves a GPU without work while the host prepares the next.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_cuda import FakeCUDA
from small_network import small_supernet, train_loader
from torch.utils.data import default_collate

import pss_razor
from pss_razor.engine.hooks import DeferredRuntimeInfoHook

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

TINY = Path(__file__).parents[1] / "tiny"
LOGS = "deferred_runtime_info_hook:_read"
OPTIONS = {"val_cfg": None, "val_dataloader": None, "val_evaluator": None, "default_hooks.checkpoint": None}


class Iterations(Hook):
    """Pins images, as ``pin_memory=True`` of a data loader does on a GPU, and keeps the waits of each iteration."""

    priority = "VERY_HIGH"

    def __init__(self, cuda):
        self.cuda, self.waits, self.event_waits = cuda, [], []

    def before_train_epoch(self, runner):
        self.cuda.take()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        data_batch["inputs"] = data_batch["inputs"].pin_memory()


class EndOfIteration(Hook):
    priority = "LOWEST"

    def __init__(self, iterations):
        self.iterations = iterations

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        cuda = self.iterations.cuda
        self.iterations.waits.append(cuda.take())
        self.iterations.event_waits.append(cuda.event_waits)
        cuda.event_waits = 0


@pytest.fixture
def train(make_runner, tmp_path, monkeypatch):
    """``train(config, options)``: a training on the fake device; returns the waits of each iteration, and the hook."""
    # Reads every parameter many times, once a training.
    monkeypatch.setattr(Runner, "_init_model_weights", lambda self: None)

    def run(config, options):
        runner = make_runner(tmp_path, {**OPTIONS, **options}, TINY / config)
        with FakeCUDA() as cuda:
            runner.model.to("cuda")
            iterations = Iterations(cuda)
            runner.register_hook(iterations, priority="VERY_HIGH")
            runner.register_hook(EndOfIteration(iterations), priority="LOWEST")
            runner.train()
        assert len(iterations.waits) == runner.iter
        return iterations

    return run


def places(waits):
    """Where the host waited, and how often."""
    return {wait.stack[-1]: sum(w.stack[-1] == wait.stack[-1] for w in waits) for wait in waits}


@pytest.mark.parametrize("config", ["tiny_supernet.py", pytest.param("tiny_one_shot.py", marks=pytest.mark.slow)])
def test_pss_waits_only_for_its_logs(train, config):
    """Two pools, so that draws look at scores of the iterations just before."""
    constraint = dict(metric="flops", num_targets=2)
    options = {"train_cfg.max_epochs": 1, "train_dataloader.dataset.indices": 64, "model.constraints": [constraint]}
    done = train(config, options)
    for number, waits in enumerate(done.waits, 1):
        assert places(waits) == ({LOGS: 1} if number in (3, 4) else {}), [str(wait) for wait in waits]
    # A score is waited for where it is needed; by then it has arrived, unless it is of the iteration just before.
    assert sum(done.event_waits) > 0


def test_options_of_the_step_do_not_wait(train):
    """An average's count is read once, which says whether it goes on from a checkpoint."""
    options = {
        "train_cfg.max_epochs": 1,
        "train_dataloader.dataset.indices": 48,
        "model.constraints": [dict(metric="flops", num_targets=2)],
        "model.teacher": "average",
        "model.largest_first": (0.0, 0.5),
        "model.loss_weights": dict(metric="flops", power=0.5),
        "model.distillation": dict(type="AlphaDivergence"),
        "default_hooks.subnet_sampler.num_sampled": 2,
    }
    done = train("tiny_supernet.py", options)
    assert [places(waits) for waits in done.waits] == [{"averaged_network:update": 1}, {}, {LOGS: 1}]


def test_spos_waits_only_for_its_logs(train):
    done = train("tiny_spos.py", {"train_cfg.max_epochs": 1, "train_dataloader.dataset.indices": 48})
    assert [places(waits) for waits in done.waits] == [{}, {}, {LOGS: 1}]


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["meta", "top1"])
def test_cream_waits_where_its_method_asks_for_values(train, teacher):
    """The board needs the accuracy of every path, and the choice of the teacher says which path runs next."""
    options = {
        "model.teacher": teacher,
        "train_cfg.max_epochs": 1,
        "train_dataloader.dataset.indices": 48,
        "default_hooks.path_board": dict(meta_start_epoch=0, update_iter=2),
    }
    done = train("tiny_cream.py", options)
    allowed = {"path_board_hook:after_train_iter", "cream:choose_teacher", LOGS}
    for waits in done.waits:
        assert set(places(waits)) <= allowed, [str(wait) for wait in waits]
    taught = any("cream:choose_teacher" in places(waits) for waits in done.waits)
    assert taught == (teacher == "meta")
    assert all(places(waits)["path_board_hook:after_train_iter"] == 1 for waits in done.waits)


def test_training_in_plain_pytorch_waits_only_for_its_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(Runner, "_init_model_weights", lambda self: None)

    def pinned(samples):
        images, labels = default_collate(samples)
        return images.pin_memory(), labels

    with FakeCUDA() as cuda:
        supernet, loader = small_supernet(), train_loader(shuffle=False, collate_fn=pinned)
        cuda.take()
        started, ended = [], []
        monkeypatch.setattr(CheckpointHook, "after_train_epoch", lambda self, runner: ended.append(cuda.take()))
        monkeypatch.setattr(
            DeferredRuntimeInfoHook, "before_train_iter", lambda *args, **kwargs: started.append(cuda.take())
        )
        pss_razor.fit(
            supernet, loader, epochs=2, num_targets=2, pool_size=2, work_dir=tmp_path, device="cuda", log_interval=6
        )
        assert all(parameter.is_cuda for parameter in supernet.parameters())
    # Before the first iteration are all checks, after the last one of an epoch its logs.
    assert [places(waits) for waits in started[1:6] + started[7:]] == [{}] * 10
    assert all(LOGS in places(waits) for waits in ended)


def test_calibration_does_not_wait_and_evaluation_only_for_predictions(make_runner, tmp_path):
    runner = make_runner(tmp_path, {"test_cfg.top_k": 1, "model.constraints": [dict(metric="flops", num_targets=2)]})
    runner.call_hook("before_run")
    loop = runner.test_loop
    with FakeCUDA() as cuda:
        runner.model.to("cuda")
        evaluator = loop.build_evaluator_of_pools()
        evaluator._batches = [{**batch, "inputs": batch["inputs"].pin_memory()} for batch in runner.train_dataloader]
        with evaluator.isolated():
            cuda.take()
            statistics = evaluator.calibrate(runner.model.space.smallest)
        assert cuda.take() == [] and all(tensor.is_cuda for pair in statistics for tensor in pair)
        metrics = loop.run()
        waits = [wait for wait in cuda.take() if wait.kind == "read"]
    assert {"largest/accuracy/top1", "smallest/accuracy/top1"} <= set(metrics)
    assert {stack for wait in waits for stack in wait.stack if stack.startswith("pool_evaluator:")} == {
        "pool_evaluator:evaluate"
    }
    assert {wait.stack[-2] for wait in waits} == {"evaluator:process"}, {str(wait) for wait in waits}
