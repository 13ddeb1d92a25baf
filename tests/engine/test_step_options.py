"""Options of the training step in a training: what is drawn when, and that it resumes exactly."""

from __future__ import annotations

import pytest
import torch

from mmengine.hooks import Hook

# Two iterations an epoch, six in all.
SHORT = {
    "train_dataloader.dataset.indices": 32,
    "val_cfg": None,
    "val_dataloader": None,
    "val_evaluator": None,
}
OPTIONS = {
    "largest_first": {"model.largest_first": (0.5, 1 / 3)},
    "average": {"model.teacher": "average", "model.average_momentum": 0.1},
    "two sampled": {"default_hooks.subnet_sampler.num_sampled": 2},
    "any resolution": {"default_hooks.subnet_sampler.smallest_resolution": "any"},
}


class RecordSteps(Hook):
    priority = "LOW"

    def __init__(self):
        self.outputs, self.sampled, self.passes, self.last, self.draws = [], [], [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.sampled.append(len(runner.model.sampled_subnets))
        sampler = next(hook.sampler for hook in runner.hooks if hasattr(hook, "sampler"))
        self.draws.append(sampler.generator.bit_generator.state["state"]["state"])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs.append(set(outputs))
        self.passes.append([passes for _, passes in runner.model.passes_of_step])
        self.last.append(runner.model.passes_of_step[-1][0])


@pytest.fixture(scope="module", params=OPTIONS)
def trained(request, make_runner, tmp_path_factory):
    options = {**SHORT, **OPTIONS[request.param]}
    runner, record = make_runner(tmp_path_factory.mktemp("options"), options), RecordSteps()
    runner.register_hook(record)
    runner.train()
    return request.param, options, runner, record


def test_what_each_step_runs(trained):
    kind, _, runner, record = trained
    visits = sum(entry.visits for pool in sampler_of(runner).pools.values() for entry in pool)
    if kind == "largest_first":
        # Weight 0 at iteration 3, where the others begin to come in.
        assert record.passes == [[3]] * 4 + [[3, 3, 3]] * 2 and record.sampled == [0, 0, 0, 0, 1, 1]
        assert ["score" in outputs for outputs in record.outputs] == [False] * 4 + [True] * 2
        assert len(set(record.draws[:4])) == 1 and len(set(record.draws)) == 3, "draws in the last two only"
        logged = list(runner.message_hub.get_scalar("train/student_weight")._log_history)
        assert logged == pytest.approx([0, 0, 0, 0, 0.5, 1])
        assert 0 < visits <= 2
    elif kind == "average":
        assert record.passes == [[3, 1, 3, 3]] * 6
    elif kind == "any resolution":
        smallest = runner.model.space.smallest
        assert record.passes == [[3, 3, 3]] * 6
        (name,) = (d.name for d in runner.model.space.dimensions if d.kind == "resolution")
        assert all({**last, name: smallest[name]} == dict(smallest) for last in record.last)
        assert len({last[name] for last in record.last}) > 1, "of six draws"
    else:
        assert record.passes == [[3, 3, 3, 3]] * 6 and record.sampled == [2] * 6
        assert 6 < visits <= 12


def sampler_of(runner):
    return next(hook.sampler for hook in runner.hooks if hasattr(hook, "sampler"))


def test_resumed_equals_never_stopped(trained, make_runner, tmp_path, assert_same_training):
    _, options, runner, _ = trained
    checkpoint = f"{runner.work_dir}/epoch_1.pth"
    make_runner(tmp_path, {**options, "load_from": checkpoint, "resume": True}).train()
    assert_same_training(f"{runner.work_dir}/epoch_3.pth", tmp_path / "epoch_3.pth")


@pytest.mark.parametrize("trained", ["average"], indirect=True)
def test_the_average_is_in_the_checkpoint_and_lags_behind(trained):
    _, _, runner, _ = trained
    state = torch.load(f"{runner.work_dir}/epoch_3.pth", weights_only=True)["state_dict"]
    assert state["average.updates"] == 6
    name = "backbone.conv1.conv.weight"
    assert not torch.equal(state[f"average.network.{name}"], state[f"architecture.{name}"])


@pytest.mark.parametrize("trained", ["average"], indirect=True)
def test_is_evaluated(trained, make_runner, tmp_path):
    _, options, runner, _ = trained
    options = {key: value for key, value in options.items() if not key.startswith("val_")}
    tested = make_runner(tmp_path, {**options, "load_from": f"{runner.work_dir}/epoch_3.pth", "test_cfg.top_k": 1})
    assert "largest/accuracy/top1" in tested.test()
