"""Cream's search: schedule, board, result, exact resume."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
import yaml

from pss_razor.core import CheckpointError, ConfigError
from pss_razor.engine.launch import build_runner, load_config
from pss_razor.registry import MODELS

from mmengine.hooks import Hook

TINY = Path(__file__).parents[2] / "tiny" / "tiny_cream.py"
_names = itertools.count()


@pytest.fixture(scope="module")
def make_search():
    """``make_search(work_dir, {key: value})``: a runner of the tiny config."""

    def make(work_dir, options=None):
        config = load_config(str(TINY), None, "none", str(work_dir))
        config.experiment_name = f"test_cream_{next(_names)}"
        config.merge_from_dict(options or {})
        return build_runner(config)

    return make


class Recorder(Hook):
    """The steps of a training."""

    def __init__(self):
        self.steps = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.steps.append(runner.model.next_step)


@pytest.fixture(scope="module")
def search(make_search, tmp_path_factory):
    """Work directory and steps of a search that was never stopped."""
    work_dir = tmp_path_factory.mktemp("search")
    runner, recorder = make_search(work_dir), Recorder()
    runner.register_hook(recorder, priority="LOW")
    runner.train()
    return work_dir, recorder.steps


def checkpoint_of(work_dir, epoch):
    return torch.load(work_dir / f"epoch_{epoch}.pth", weights_only=True)


def test_schedule(search):
    _, steps = search
    assert len(steps) == 18
    # one epoch of six iterations without a board, then an empty board, then teachers
    assert [len(step.board) for step in steps[:10]] == [0] * 7 + [1, 2, 3]
    assert [i for i, step in enumerate(steps) if step.meta_update] == [10, 14]
    assert len({step.path for step in steps}) > 10


def test_board_and_result(search):
    work_dir, _ = search
    assert checkpoint_of(work_dir, 1)["cream"]["board"] == []
    state = checkpoint_of(work_dir, 3)["cream"]["board"]
    written = json.loads((work_dir / "board.json").read_text())
    assert [e["accuracy"] for e in written] == [e["accuracy"] for e in state]
    assert [e["accuracy"] for e in state] == sorted((e["accuracy"] for e in state), reverse=True)
    assert all(e["images"].shape == (3, 3, 32, 32) and e["targets"].shape == (3, 10) for e in state)
    # the tiny config asks for no range, so that the best is the first
    subnet = yaml.safe_load((work_dir / "best_fix_subnet.yaml").read_text())
    ops = ["k3e4", "k3e6", "k5e4", "k5e6", "k7e4", "k7e6"]
    expected = {f"backbone.layer{s + 1}.0": {"chosen": ops[stage[0]]} for s, stage in enumerate(written[0]["arch"])}
    expected["backbone.layer1.0"] = {"chosen": "k3e1"}
    del expected["backbone.layer7.0"]
    assert subnet == expected


def test_the_result_is_built_by_sub_model(search, make_search):
    work_dir, _ = search
    config = load_config(str(TINY), None, "none", str(work_dir))
    model = MODELS.build(
        dict(type="sub_model", cfg=config.model.architecture, fix_subnet=str(work_dir / "best_fix_subnet.yaml"))
    )
    assert model.backbone.arch == json.loads((work_dir / "board.json").read_text())[0]["arch"]


def test_flops_of_the_board_are_those_of_the_static_network(search, make_search):
    work_dir, _ = search
    config = load_config(str(TINY), None, "none", str(work_dir))
    for entry in json.loads((work_dir / "board.json").read_text()):
        backbone = dict(type="CreamMobileNet", arch=entry["arch"], input_size=32)
        model = MODELS.build({**config.model.architecture, "backbone": backbone}).eval()
        macs = 0

        def count(module, inputs, output):
            nonlocal macs
            if isinstance(module, torch.nn.Conv2d):
                macs += module.weight.numel() * output.shape[-1] * output.shape[-2]
            elif isinstance(module, torch.nn.Linear):
                macs += module.weight.numel()
            elif isinstance(module, torch.nn.AdaptiveAvgPool2d):
                macs += inputs[0].numel()

        for name, module in model.named_modules():
            if not name.endswith("se.global_avgpool"):  # of average poolings the final one counts
                module.register_forward_hook(count)
        model(torch.zeros(1, 3, 32, 32))
        assert entry["flops"] == pytest.approx(macs * 1e-6, rel=1e-9)


@pytest.mark.parametrize("epoch", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_resumed_equals_never_stopped(search, make_search, tmp_path, assert_same, epoch):
    work_dir, _ = search
    make_search(tmp_path, {"load_from": str(work_dir / f"epoch_{epoch}.pth"), "resume": True}).train()
    straight, resumed = checkpoint_of(work_dir, 3), checkpoint_of(tmp_path, 3)
    for part in ("state_dict", "optimizer", "param_schedulers", "cream", "random_state"):
        assert_same(straight[part], resumed[part], part)
    assert (tmp_path / "best_fix_subnet.yaml").read_text() == (work_dir / "best_fix_subnet.yaml").read_text()


def test_the_comparison_sees_another_board(search, assert_same):
    work_dir, _ = search
    with pytest.raises(AssertionError):
        assert_same(checkpoint_of(work_dir, 2)["cream"], checkpoint_of(work_dir, 3)["cream"])


def test_testing_a_search_tests_its_result(search, make_search, tmp_path):
    work_dir, _ = search
    runner = make_search(tmp_path, {"load_from": str(work_dir / "epoch_3.pth")})
    metrics = runner.test()
    assert runner.model.architecture.backbone.arch == json.loads((work_dir / "board.json").read_text())[0]["arch"]
    assert 0 < metrics["accuracy/top1"] <= 100
    with pytest.raises(CheckpointError, match="board of paths is empty"):
        make_search(tmp_path, {"load_from": str(work_dir / "epoch_1.pth")}).test()


def test_the_result_is_within_the_range_of_the_whole_network(search, make_search, tmp_path):
    """Of a range that leaves out the most accurate paths, and of one that no path is in, the nearest."""
    work_dir, _ = search
    entries = json.loads((work_dir / "board.json").read_text())
    for least, most, expected in [
        (entries[2]["flops"] - 1e-6, entries[2]["flops"] + 1e-6, entries[2]),
        (0.0, min(entry["flops"] for entry in entries) / 2, min(entries, key=lambda entry: entry["flops"])),
    ]:
        options = {"load_from": str(work_dir / "epoch_3.pth"), "default_hooks.path_board.mflops_range": (least, most)}
        runner = make_search(tmp_path, options)
        runner.test()
        assert runner.model.architecture.backbone.arch == expected["arch"]


def test_load_from_alone_starts_with_an_empty_board(search, make_search, tmp_path):
    work_dir, _ = search
    runner = make_search(tmp_path, {"load_from": str(work_dir / "epoch_3.pth")})
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.call_hook("before_run")
    runner.load_or_resume()
    (hook,) = [hook for hook in runner.hooks if hasattr(hook, "board")]
    assert len(hook.board) == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"train_dataloader.batch_size": 5}, "at least 6 images"),
        ({"train_dataloader.drop_last": False}, "drop_last=True"),
        ({"train_cfg.max_epochs": 1}, "meta_start_epoch = 1 is not before"),
        ({"optim_wrapper.accumulative_counts": 2}, "accumulative_counts must be 1"),
        ({"default_hooks.path_board.sampling": "evne"}, "'evne'"),
        ({"default_hooks.path_board.pool_size": 0}, "pool_size = 0"),
        ({"default_hooks.path_board.update_iter": 0}, "update_iter"),
        (
            {"default_hooks.path_board.sampling": "pre_prob", "default_hooks.path_board.op_probabilities": [0.5, 0.5]},
            "6 ops",
        ),
        ({"default_hooks.path_board.mflops_range": (5, 3)}, "least and most"),
        ({"model.teacher": "best"}, "'best'"),
    ],
)
def test_what_cannot_work_is_said_before_training(make_search, tmp_path, options, problem):
    with pytest.raises(ConfigError, match=problem):
        make_search(tmp_path, options).train()
    assert not list(tmp_path.glob("*.pth"))


def test_a_checkpoint_without_a_board(search, make_search, tmp_path):
    work_dir, _ = search
    checkpoint = checkpoint_of(work_dir, 2)
    del checkpoint["cream"]
    torch.save(checkpoint, tmp_path / "epoch_2.pth")
    with pytest.raises(CheckpointError, match="no board of paths"):
        make_search(tmp_path, {"load_from": str(tmp_path / "epoch_2.pth"), "resume": True}).train()
