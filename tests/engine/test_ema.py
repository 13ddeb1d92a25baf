"""A hook that a user adds beside the sampler's: averaged weights of mmengine's ``EMAHook``."""

from __future__ import annotations

import pytest
import torch

from mmengine.hooks import EMAHook

EMA = {"custom_hooks": [dict(type="EMAHook", momentum=0.5)]}


@pytest.fixture(scope="module")
def work_dir(make_runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ema")
    make_runner(folder, EMA).train()
    return folder


def test_pools_are_trained_and_averages_kept(make_runner, get_sampler, work_dir):
    state = torch.load(work_dir / "epoch_3.pth", weights_only=True)
    assert any(pool for pools in state["pss"]["pools"].values() for pool in pools.values())
    averages = {name.removeprefix("module."): value for name, value in state["ema_state_dict"].items()}
    weights = {name: value for name, value in state["state_dict"].items() if name.endswith("weight")}
    assert weights and all(not torch.equal(averages[name], value) for name, value in weights.items() if value.ndim == 4)


def test_the_averages_are_evaluated(make_runner, get_sampler, work_dir, tmp_path):
    """With BN statistics of their own, as each subnet has."""
    runner = make_runner(tmp_path, {**EMA, "load_from": str(work_dir / "epoch_3.pth")})
    metrics = runner.test()
    assert len(get_sampler(runner).pools) == 8 and "pools_mean/accuracy/top1" in metrics
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    saved = torch.load(work_dir / "epoch_3.pth", weights_only=True)["state_dict"]
    name = "architecture.backbone.conv1.conv.weight"
    # mmengine saves the averages as the weights, and the weights as ema_state_dict.
    assert torch.equal(hook.ema_model.module.state_dict()[name], saved[name])


def test_it_resumes_exactly(make_runner, work_dir, tmp_path, assert_same_training):
    make_runner(tmp_path, {**EMA, "load_from": str(work_dir / "epoch_2.pth"), "resume": True}).train()
    assert_same_training(work_dir / "epoch_3.pth", tmp_path / "epoch_3.pth")
