"""Images and multiply-accumulates of a training are those of its steps, wherever it is stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pss_razor.core import CheckpointError, Subnet
from pss_razor.engine.hooks import TrainingCostHook
from pss_razor.registry import HOOKS

from mmengine.hooks import Hook

NO_VALIDATION = {"val_cfg": None, "val_dataloader": None, "val_evaluator": None}
# Of the tiny config: 96 images in batches of 16.
STEPS_OF_EPOCH, BATCH = 6, 16


class Recorder(Hook):
    """The subnets and the images of every step, as they are."""

    priority = "LOW"

    def __init__(self):
        self.steps = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.steps.append((runner.model.sampled_subnet, len(data_batch["inputs"])))


def hook_of(runner) -> TrainingCostHook:
    return next(hook for hook in runner.hooks if isinstance(hook, TrainingCostHook))


def gmacs(algorithm, steps) -> float:
    """Three passes of three subnets for each image, one step after the other."""
    total = 0.0
    for sampled, images in steps:
        for subnet in (algorithm.space.largest, sampled, algorithm.space.smallest):
            total += 3 * images * algorithm.costs["flops"](algorithm.space.encode([subnet]))[0] / 1e3
    return total


@pytest.fixture(scope="module")
def trained(make_runner, tmp_path_factory):
    runner = make_runner(tmp_path_factory.mktemp("trained"), {**NO_VALIDATION, "train_cfg.max_epochs": 3})
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    return runner, recorder.steps


def checkpoint(runner, epoch):
    return torch.load(f"{runner.work_dir}/epoch_{epoch}.pth", weights_only=True)


def test_counts_every_step(trained):
    runner, steps = trained
    assert len(steps) == 3 * STEPS_OF_EPOCH
    cost = hook_of(runner).cost
    assert cost == {
        "images": 3 * 96,
        "steps": 3 * STEPS_OF_EPOCH,
        "gmacs": pytest.approx(gmacs(runner.model, steps), rel=1e-9),
    }


def test_checkpoints_have_the_counts_of_their_time(trained):
    runner, steps = trained
    for epoch in (1, 2, 3):
        saved = checkpoint(runner, epoch)["training_cost"]
        assert saved["images"] == 96 * epoch and saved["steps"] == STEPS_OF_EPOCH * epoch
        expected = gmacs(runner.model, steps[: STEPS_OF_EPOCH * epoch])
        assert saved["macs"] / 1e9 == pytest.approx(expected, rel=1e-9) and isinstance(saved["macs"], int)


def test_logs(trained):
    runner, steps = trained
    files = list(Path(runner.work_dir).glob("*/vis_data/scalars.json"))
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    logged = [(line["step"], line["images"], line["gmacs"]) for line in lines if "images" in line]
    assert [step for step, *_ in logged] == list(range(3, 19, 3))  # the logger's interval
    for step, images, cost in logged:
        assert images == step * BATCH and cost == pytest.approx(gmacs(runner.model, steps[:step]), rel=1e-9)


@pytest.mark.parametrize("epoch", [1, 2])
def test_resumes_exactly(trained, make_runner, tmp_path, epoch):
    runner, _ = trained
    options = {**NO_VALIDATION, "load_from": f"{runner.work_dir}/epoch_{epoch}.pth", "resume": True}
    resumed = make_runner(tmp_path, {**options, "train_cfg.max_epochs": 3})
    resumed.train()
    assert checkpoint(resumed, 3)["training_cost"] == checkpoint(runner, 3)["training_cost"]
    assert hook_of(resumed).cost == hook_of(runner).cost


def without_counts(runner, path, counts=None):
    content = checkpoint(runner, 2)
    del content["training_cost"]
    if counts is not None:
        content["training_cost"] = counts
    torch.save(content, path)
    return str(path)


def test_an_old_checkpoint_counts_from_zero_with_a_warning(trained, make_runner, tmp_path, capfd):
    old = without_counts(trained[0], tmp_path / "old.pth")
    runner = make_runner(tmp_path, {**NO_VALIDATION, "load_from": old, "resume": True, "train_cfg.max_epochs": 3})
    runner.train()
    assert "does not say what its training cost" in "".join(capfd.readouterr())
    assert hook_of(runner).cost["steps"] == STEPS_OF_EPOCH and hook_of(runner).cost["images"] == 96


def test_a_training_that_only_starts_from_a_checkpoint_counts_from_zero(trained, make_runner, tmp_path):
    options = {**NO_VALIDATION, "load_from": f"{trained[0].work_dir}/epoch_2.pth", "train_cfg.max_epochs": 1}
    runner = make_runner(tmp_path, options)
    runner.train()
    assert hook_of(runner).cost["images"] == 96


@pytest.mark.parametrize("counts", [3, {"steps": 1, "images": 2}, {"steps": 1, "images": 2, "macs": -1}])
def test_damaged_counts(trained, make_runner, tmp_path, counts):
    damaged = without_counts(trained[0], tmp_path / "damaged.pth", counts)
    runner = make_runner(tmp_path, {**NO_VALIDATION, "load_from": damaged, "resume": True})
    with pytest.raises(CheckpointError, match="'training_cost' is damaged"):
        runner.train()


class TestResults:
    def results(self, make_runner, work_dir, path):
        make_runner(work_dir, {"load_from": path}).test()
        return json.loads((work_dir / "pool_results.json").read_text())["training"]

    def test_have_what_the_tested_checkpoint_cost(self, trained, make_runner, tmp_path):
        runner, steps = trained
        found = self.results(make_runner, tmp_path, f"{runner.work_dir}/epoch_2.pth")
        expected = gmacs(runner.model, steps[: 2 * STEPS_OF_EPOCH])
        assert found == {
            "images": 192,
            "steps": 2 * STEPS_OF_EPOCH,
            "gmacs": pytest.approx(expected, rel=1e-9),
        }

    def test_do_not_say_what_is_not_known(self, trained, make_runner, tmp_path):
        old = without_counts(trained[0], tmp_path / "old.pth")
        assert self.results(make_runner, tmp_path, old) is None


class Steps:
    """A hook that believes it is trained, with subnets of any algorithm."""

    def __init__(self, algorithm, monkeypatch, processes=1):
        monkeypatch.setattr("pss_razor.engine.hooks.training_cost_hook.get_algorithm", lambda runner: algorithm)
        monkeypatch.setattr("pss_razor.engine.hooks.training_cost_hook.get_world_size", lambda: processes)
        monkeypatch.setattr("pss_razor.engine.hooks.training_cost_hook.is_about_to_log", lambda *arguments: False)
        self.hook = HOOKS.build(dict(type="TrainingCostHook"))
        self.algorithm = algorithm
        self.runner = SimpleNamespace()
        self.hook.before_run(self.runner)

    def step(self, batch, *passes):
        self.algorithm.passes_of_step = list(passes)
        self.hook.after_train_iter(self.runner, 0, batch)


@pytest.fixture
def algorithm(trained):
    return trained[0].model


class TestPasses:
    def test_are_the_algorithms(self, algorithm, monkeypatch):
        """A forward pass alone counts once; two sampled subnets count both."""
        space = algorithm.space
        draws = [space.decode(row) for row in space.draw(2, np.random.default_rng(0))]
        steps = Steps(algorithm, monkeypatch)
        steps.step({"inputs": torch.zeros(5, 3, 8, 8)}, (space.largest, 1), *((subnet, 3) for subnet in draws))
        costs = algorithm.costs["flops"](space.encode([space.largest, *draws]))
        expected = 5 * (costs[0] + 3 * costs[1] + 3 * costs[2]) / 1e3
        assert steps.hook.cost == {"images": 5, "steps": 1, "gmacs": pytest.approx(expected, rel=1e-9)}

    def test_of_all_processes(self, algorithm, monkeypatch):
        largest = algorithm.space.largest
        one, two = (Steps(algorithm, monkeypatch) for _ in range(2))
        one.step({"inputs": [torch.zeros(3, 8, 8)] * 8}, (largest, 3))
        two = Steps(algorithm, monkeypatch, processes=2)
        two.step({"inputs": [torch.zeros(3, 8, 8)] * 4}, (largest, 3))
        assert one.hook.cost == two.hook.cost and one.hook.cost["images"] == 8

    def test_batches_of_plain_pytorch(self, algorithm, monkeypatch):
        steps = Steps(algorithm, monkeypatch)
        steps.step([torch.zeros(7, 3, 8, 8), torch.zeros(7)], (algorithm.space.smallest, 3))
        assert steps.hook.cost["images"] == 7

    def test_added_by_another_hook(self, algorithm, monkeypatch):
        """Scoring costs, and is neither a step nor an image that is trained on."""
        steps = Steps(algorithm, monkeypatch)
        largest, smallest = algorithm.space.largest, algorithm.space.smallest
        steps.hook.add([(largest, 1), (smallest, 2), (largest, 1)], images=1000)
        costs = algorithm.costs["flops"](algorithm.space.encode([largest, smallest]))
        expected = 1000 * (2 * costs[0] + 2 * costs[1]) / 1e3
        assert steps.hook.cost == {"images": 0, "steps": 0, "gmacs": pytest.approx(expected, rel=1e-9)}

    def test_when_they_are_added_up_makes_no_difference(self, algorithm, monkeypatch):
        space = algorithm.space
        rows = space.draw(200, np.random.default_rng(1))
        batch = {"inputs": torch.zeros(3, 3, 8, 8)}
        often, once = Steps(algorithm, monkeypatch), Steps(algorithm, monkeypatch)
        for row in rows:
            for steps in (often, once):
                steps.step(batch, (space.largest, 3), (space.decode(row), 3), (space.smallest, 3))
            often.hook.cost  # noqa: B018
        assert often.hook.cost == once.hook.cost

    def test_a_step_costs_less_than_a_millisecond(self, algorithm, monkeypatch):
        """The tiny network's steps take some 80 ms, ImageNet's some 300."""
        space = algorithm.space
        subnets = [space.decode(row) for row in space.draw(50, np.random.default_rng(1))]
        batch = {"inputs": torch.zeros(3, 3, 8, 8)}
        steps = Steps(algorithm, monkeypatch)
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            for index in range(500):
                steps.step(batch, (space.largest, 3), (subnets[index % 50], 3), (space.smallest, 3))
            assert steps.hook.cost is not None
            best = min(best, (time.perf_counter() - start) / 500)
        assert best < 1e-3


def test_unknown_subnets_are_not_forgotten(algorithm, monkeypatch):
    steps = Steps(algorithm, monkeypatch)
    steps.hook.add([(Subnet({"stem": 1}), 1)], images=1)
    with pytest.raises(Exception, match="stem"):
        steps.hook.cost  # noqa: B018
