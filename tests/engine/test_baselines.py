"""The baselines train, resume exactly and are evaluated as the method is."""

from __future__ import annotations

import copy
import logging

import pytest
import torch

from pss_razor.core import CheckpointError, ConfigError
from pss_razor.engine import BaselineSamplerHook
from pss_razor.engine.hooks import SubnetSamplerHook

from mmengine.hooks import Hook

METHODS = ["usnet", "mutualnet", "uniform"]
NO_VALIDATION = {"val_cfg": None, "val_dataloader": None, "val_evaluator": None}


def options_of(method, **options):
    return {
        "default_hooks.subnet_sampler": dict(_delete_=True, type="BaselineSamplerHook", method=method),
        "train_cfg.max_epochs": 2,
        "param_scheduler.end": 2,
        "train_dataloader.dataset.indices": 32,  # two iterations an epoch
        **NO_VALIDATION,
        **options,
    }


class RecordSubnets(Hook):
    """What was trained."""

    priority = "LOW"

    def __init__(self):
        self.subnets = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.subnets.append(runner.model.sampled_subnet)


@pytest.fixture(scope="module", params=METHODS)
def trained(request, make_runner, tmp_path_factory):
    """Method, the runner after two epochs of two iterations, and the subnets."""
    work_dir = tmp_path_factory.mktemp(request.param)
    runner, record = make_runner(work_dir, options_of(request.param)), RecordSubnets()
    runner.register_hook(record)
    runner.train()
    return request.param, runner, record.subnets


def test_trains_the_sampler_s_subnets(trained, make_runner, tmp_path):
    method, runner, subnets = trained
    space = runner.model.space
    assert len(subnets) == 4 and not any(subnet is None for subnet in subnets)
    if method == "usnet":
        assert {subnet["resolution"] for subnet in subnets} == {32}
    hook = BaselineSamplerHook(method)
    algorithm = make_runner(tmp_path).model
    sampler = hook.build_sampler(algorithm.costs, algorithm.constraints, seed=0)  # the runner's seed
    assert [sampler.draw().subnet for _ in range(4)] == subnets
    assert all(set(subnet) == set(space.names) for subnet in subnets)


def test_resumed_equals_never_stopped(trained, make_runner, tmp_path, assert_same_training):
    method, runner, subnets = trained
    record = RecordSubnets()
    checkpoint = f"{runner.work_dir}/epoch_1.pth"
    resumed = make_runner(tmp_path, options_of(method, load_from=checkpoint, resume=True))
    resumed.register_hook(record)
    resumed.train()
    assert record.subnets == subnets[2:]
    assert_same_training(f"{runner.work_dir}/epoch_2.pth", tmp_path / "epoch_2.pth")


def test_is_evaluated_at_its_targets(trained, make_runner, tmp_path, get_sampler):
    method, runner, _ = trained
    tested = make_runner(tmp_path, options_of(method, load_from=f"{runner.work_dir}/epoch_2.pth"))
    metrics = tested.test()
    sampler = get_sampler(tested)
    names = {f"{metric}_{target}" for metric, target in sampler.reachable_targets}
    assert {name.split("/")[0] for name in metrics} == names | {"largest", "smallest", "pools_mean"}
    records = tested.test_loop.results
    for record in records[2:]:
        constraint = sampler.conditional_samplers[record.metric].constraint
        (index,) = constraint.nearest_target_index([record.resources[record.metric]])
        assert constraint.targets[index] == record.target and record.score is None
        assert record.rank < tested.cfg.test_cfg.top_k
    assert (tmp_path / "pool_results.json").is_file() and (tmp_path / "accuracy_flops.png").is_file()


def test_targets_out_of_reach_are_reported_once(make_runner, tmp_path, monkeypatch):
    runner = make_runner(tmp_path, options_of("usnet"))
    messages = []
    monkeypatch.setattr(logging.Logger, "warning", lambda self, message, *args: messages.append(message))
    runner.call_hook("before_run")
    (message,) = [message for message in messages if "flops" in message]
    assert message.startswith("flops: no subnet has 0.3, ") and message.endswith("MFLOPs. Left out.")


def test_unknown_method():
    with pytest.raises(ConfigError, match=r"method = 'usnets' is no baseline.*'usnet', 'mutualnet', 'uniform'"):
        BaselineSamplerHook("usnets")


def test_checkpoint_of_another_method(trained, make_runner, straight, tmp_path):
    method, runner, _ = trained
    other = METHODS[METHODS.index(method) - 1]
    with pytest.raises(CheckpointError, match=f"baseline '{method}', the config has '{other}'"):
        make_runner(tmp_path, options_of(other, load_from=f"{runner.work_dir}/epoch_2.pth")).test()
    with pytest.raises(CheckpointError, match=r"misses \['method'\]"):
        make_runner(tmp_path, options_of(method, load_from=str(straight / "epoch_3.pth"))).test()
    with pytest.raises(CheckpointError, match=r"misses \['pools'\]"):
        make_runner(tmp_path, {"load_from": f"{runner.work_dir}/epoch_2.pth"}).test()


# When scores are read


class Outputs:
    """A hook between iterations, without a training."""

    def __init__(self, make_runner, tmp_path, options=None):
        self.runner = make_runner(tmp_path, {**NO_VALIDATION, **(options or {})})
        self.runner._train_loop = self.runner.build_train_loop(self.runner._train_loop)
        self.runner.call_hook("before_run")
        (self.hook,) = [hook for hook in self.runner.hooks if isinstance(hook, SubnetSamplerHook)]

    def iterate(self, score):
        self.hook.before_train_iter(self.runner, 0)
        (draw,) = self.hook._draws
        self.hook.after_train_iter(self.runner, 0, outputs={"score": score})
        return draw


class ReadOnce(torch.Tensor):
    """Counts how often its value goes to the host."""

    reads = 0

    def tolist(self):
        ReadOnce.reads += 1
        return self.as_subclass(torch.Tensor).tolist()

    def item(self):
        ReadOnce.reads += 1
        return self.as_subclass(torch.Tensor).item()

    __float__ = item


def test_score_is_read_when_the_sampler_is_asked(make_runner, tmp_path):
    outputs = Outputs(make_runner, tmp_path)
    ReadOnce.reads = 0
    draw = outputs.iterate(torch.tensor(-1.5).as_subclass(ReadOnce))
    assert ReadOnce.reads == 0
    (entry,) = outputs.hook.sampler.pools[draw.metric, draw.target]
    assert ReadOnce.reads == 1
    assert (entry.subnet, entry.score, entry.visits) == (draw.subnet, -1.5, 1)
    assert len(outputs.hook.sampler.pools[draw.metric, draw.target]) == 1 and ReadOnce.reads == 1


def test_scores_are_read_before_the_next_draw(make_runner, tmp_path):
    """The draws equal those of a sampler that learns at once."""
    outputs = Outputs(make_runner, tmp_path)
    at_once = copy.deepcopy(outputs.hook.sampler)
    for iteration in range(60):
        draw = outputs.iterate(torch.tensor(-1.0 / (iteration + 1)))
        assert draw == at_once.draw(*outputs.hook._scheduled(outputs.runner))
        at_once.update(draw, float(torch.tensor(-1.0 / (iteration + 1))))
    assert at_once.state_dict() == outputs.hook.sampler.state_dict()


def test_each_draw_gets_its_own_score(make_runner, tmp_path):
    outputs = Outputs(make_runner, tmp_path, {"default_hooks.subnet_sampler.num_sampled": 3})
    one_by_one = copy.deepcopy(outputs.hook.sampler)
    for iteration in range(20):
        outputs.hook.before_train_iter(outputs.runner, 0)
        draws = [one_by_one.draw(*outputs.hook._scheduled(outputs.runner)) for _ in range(3)]
        assert list(outputs.runner.model.sampled_subnets) == [draw.subnet for draw in draws]
        scores = [-1.0 / (3 * iteration + number) for number in (1, 2, 3)]
        outputs.hook.after_train_iter(outputs.runner, 0, outputs={"score": torch.tensor(scores, dtype=torch.float64)})
        for draw, score in zip(draws, scores, strict=True):
            one_by_one.update(draw, score)
    assert one_by_one.state_dict() == outputs.hook.sampler.state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_baselines_draw_several(method, make_runner, tmp_path):
    options = options_of(method)
    options["default_hooks.subnet_sampler"]["num_sampled"] = 2
    outputs = Outputs(make_runner, tmp_path, options)
    outputs.hook.before_train_iter(outputs.runner, 0)
    assert len(outputs.runner.model.sampled_subnets) == 2


@pytest.mark.parametrize("method", METHODS)
def test_smallest_at_any_resolution(method, make_runner, tmp_path):
    options = options_of(method)
    options["default_hooks.subnet_sampler"]["smallest_resolution"] = "any"
    outputs = Outputs(make_runner, tmp_path, options)
    algorithm, found = outputs.runner.model, set()
    (resolution,) = (d for d in algorithm.space.dimensions if d.kind == "resolution")
    for _ in range(40):
        outputs.hook.before_train_iter(outputs.runner, 0)
        found.add(algorithm.smallest_subnet[resolution.name])
        assert {**algorithm.smallest_subnet, resolution.name: resolution.values[0]} == dict(algorithm.space.smallest)
    assert found == set(resolution.values)


def test_smallest_at_an_unknown_resolution():
    with pytest.raises(ConfigError, match=r"smallest_resolution = 24 is not known; choose from \['smallest', 'any'\]"):
        BaselineSamplerHook("uniform", smallest_resolution=24)


@pytest.mark.parametrize("num_sampled", [0, -1, 1.5])
def test_num_sampled(num_sampled):
    with pytest.raises(ConfigError, match=rf"BaselineSamplerHook: num_sampled = {num_sampled} must be 1 or more"):
        BaselineSamplerHook("uniform", num_sampled=num_sampled)


def test_a_checkpoint_has_the_last_score(make_runner, tmp_path):
    outputs = Outputs(make_runner, tmp_path)
    draw = outputs.iterate(torch.tensor(-0.25))
    checkpoint = {}
    outputs.hook.before_save_checkpoint(outputs.runner, checkpoint)
    ((entry,),) = [e for pools in checkpoint["pss"]["pools"].values() for e in pools.values() if e]
    assert entry["score"] == -0.25 and entry["resource"] == draw.resource
