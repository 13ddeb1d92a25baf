"""What a step will cost is what it costs."""

from __future__ import annotations

import numpy as np
import pytest

from pss_razor.comparison.expected_cost import equal_cost_epochs, expected_macs
from pss_razor.core import ConfigError
from pss_razor.engine.hooks import TrainingCostHook
from pss_razor.engine.launch import load_config
from pss_razor.registry import MODELS

UNIFORM = dict(type="BaselineSamplerHook", method="uniform")


@pytest.fixture
def tiny(request):
    path = request.config.rootpath / "tests" / "tiny" / "tiny_supernet.py"

    def load(**options):
        config = load_config(str(path), None, "none", "unused")
        config.merge_from_dict(options)
        return config

    return load


@pytest.fixture
def uniform(tiny):
    config = tiny()
    config.default_hooks.subnet_sampler = dict(UNIFORM)
    return config


def of_step(config, **options):
    macs, of_scores = expected_macs(config, **options)
    assert of_scores == 0
    return macs


def test_of_uniform_sampling(uniform):
    """The exact mean over the space, by enumeration."""
    algorithm = MODELS.build(uniform.model)
    space, cost = algorithm.space, algorithm.costs["flops"]
    rows = space.enumerate()
    mean = float(np.dot(space.probabilities(rows), cost(rows)))
    expected = 3 * (cost(space.encode([space.largest, space.smallest])).sum() + mean)
    assert of_step(uniform) == pytest.approx(expected, rel=0.02)


def test_of_pools_all_targets_are_equally_likely(tiny):
    config = tiny()
    algorithm = MODELS.build(config.model)
    cost = algorithm.costs["flops"](algorithm.space.encode([algorithm.space.largest, algorithm.space.smallest]))
    sampled = of_step(config) / 3 - cost.sum()
    # Targets of flops are 0.3, 0.5, 0.7, those of params have other means
    assert 0.35 < sampled < 0.65


def test_is_what_the_first_steps_cost(tiny, make_runner, tmp_path):
    """A training of 36 steps whose pools are never full."""
    options = {
        "default_hooks.subnet_sampler.pool_size": 50,
        "train_cfg.max_epochs": 6,
        "param_scheduler.end": 6,
        "val_cfg": None,
        "val_dataloader": None,
        "val_evaluator": None,
    }
    runner = make_runner(tmp_path, options)
    runner.train()
    cost = next(hook.cost for hook in runner.hooks if isinstance(hook, TrainingCostHook))
    expected = of_step(tiny(**{"default_hooks.subnet_sampler.pool_size": 50}))
    assert cost["gmacs"] * 1e3 / cost["images"] == pytest.approx(expected, rel=0.06)


def test_of_scoring_pools_anew(tiny):
    """All pools have three new subnets at first, and then keep two, of one."""
    rescoring = [dict(at=0.3, images=16, fresh=3, keep=2), dict(at=0.6, images=32, keep=1)]
    hook = dict(pool_size=2, score="held_out", rescoring=rescoring, scoring_dataloader=dict(unused=True))
    config = tiny(**{f"default_hooks.subnet_sampler.{name}": value for name, value in hook.items()})
    config.model.constraints = [dict(metric="flops", first=0.3, last=0.7, step=0.2)]
    _, of_scores = expected_macs(config, draws=60)
    # Each subnet's cost is within half a step, 0.1, of its target.
    assert of_scores == pytest.approx((0.3 + 0.5 + 0.7) * (3 * 16 + 2 * 32), rel=0.2)


def test_of_a_subnet_alone(uniform):
    uniform.model.type = "SubnetAlone"
    uniform.model.subnet = "smallest"
    algorithm = MODELS.build(uniform.model)
    smallest = algorithm.costs["flops"](algorithm.space.encode([algorithm.space.smallest]))[0]
    assert of_step(uniform, draws=3) == pytest.approx(3 * smallest)


def test_of_a_teacher_of_its_own(uniform):
    """It runs once more forward, on the layers of the largest subnet."""
    without = of_step(uniform, draws=20)
    algorithm = MODELS.build(uniform.model)
    largest = algorithm.costs["flops"](algorithm.space.encode([algorithm.space.largest]))[0]
    uniform.model.teacher = "average"
    assert of_step(uniform, draws=20) == pytest.approx(without + largest)


def test_changes_nothing_outside(uniform):
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = of_step(uniform, draws=10)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert of_step(uniform, draws=10) == first


class TestEqualEpochs:
    @pytest.fixture(autouse=True)
    def _costs(self, monkeypatch):
        """An image costs what the config says."""
        monkeypatch.setattr("pss_razor.comparison.expected_cost.expected_macs", lambda config: config.macs)

    def configs(self, tiny, *costs):
        made = {}
        for index, cost in enumerate(costs):
            made[f"m{index}"] = tiny(**{"train_cfg.max_epochs": 24})
            made[f"m{index}"].macs = cost
        return made

    def test_are_rounded_and_at_least_one(self, tiny):
        found = equal_cost_epochs(self.configs(tiny, *((macs, 0.0) for macs in (30.0, 31.0, 15.0, 40.0, 3000.0))))
        assert found == {"m0": 24, "m1": 23, "m2": 48, "m3": 18, "m4": 1}

    def test_scoring_pools_anew_takes_epochs(self, tiny):
        images = 96  # of an epoch: six steps of 16
        found = equal_cost_epochs(self.configs(tiny, (30.0, 0.0), (30.0, 30.0 * 2 * images), (60.0, 30.0 * 4 * images)))
        assert found == {"m0": 24, "m1": 22, "m2": 10}
        found = equal_cost_epochs(self.configs(tiny, (30.0, 30.0 * 2 * images), (30.0, 0.0)))
        assert found == {"m0": 24, "m1": 26}

    def test_of_iterations(self, tiny):
        configs = self.configs(tiny, (30.0, 0.0), (31.0, 0.0))
        configs["m1"].train_cfg = dict(by_epoch=False, max_iters=100)
        with pytest.raises(ConfigError, match="m1 counts iterations"):
            equal_cost_epochs(configs)


def test_without_a_sampler(tiny):
    config = tiny()
    del config.default_hooks["subnet_sampler"]
    with pytest.raises(ConfigError, match="set subnet_sampler"):
        of_step(config)
