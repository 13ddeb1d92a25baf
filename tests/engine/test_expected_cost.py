"""What a step will cost is what it costs."""

from __future__ import annotations

import numpy as np
import pytest

from pss_razor.core import ConfigError
from pss_razor.engine.expected_cost import equal_cost_epochs, expected_macs_of_image
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


def test_of_uniform_sampling(uniform):
    """The exact mean over the space, by enumeration."""
    algorithm = MODELS.build(uniform.model)
    space, cost = algorithm.space, algorithm.costs["flops"]
    rows = space.enumerate()
    mean = float(np.dot(space.probabilities(rows), cost(rows)))
    expected = 3 * (cost(space.encode([space.largest, space.smallest])).sum() + mean)
    assert expected_macs_of_image(uniform) == pytest.approx(expected, rel=0.02)


def test_of_pools_all_targets_are_equally_likely(tiny):
    config = tiny()
    algorithm = MODELS.build(config.model)
    cost = algorithm.costs["flops"](algorithm.space.encode([algorithm.space.largest, algorithm.space.smallest]))
    sampled = expected_macs_of_image(config) / 3 - cost.sum()
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
    expected = expected_macs_of_image(tiny(**{"default_hooks.subnet_sampler.pool_size": 50}))
    assert cost["gmacs"] * 1e3 / cost["images"] == pytest.approx(expected, rel=0.06)


def test_of_a_subnet_alone(uniform):
    uniform.model.type = "SubnetAlone"
    uniform.model.subnet = "smallest"
    algorithm = MODELS.build(uniform.model)
    smallest = algorithm.costs["flops"](algorithm.space.encode([algorithm.space.smallest]))[0]
    assert expected_macs_of_image(uniform, draws=3) == pytest.approx(3 * smallest)


def test_changes_nothing_outside(uniform):
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = expected_macs_of_image(uniform, draws=10)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert expected_macs_of_image(uniform, draws=10) == first


class TestEqualEpochs:
    @pytest.fixture(autouse=True)
    def _costs(self, monkeypatch):
        """An image costs what the config says."""
        monkeypatch.setattr("pss_razor.engine.expected_cost.expected_macs_of_image", lambda config: config.macs)

    def configs(self, tiny, *costs):
        made = {}
        for index, cost in enumerate(costs):
            made[f"m{index}"] = tiny(**{"train_cfg.max_epochs": 24})
            made[f"m{index}"].macs = cost
        return made

    def test_are_rounded_and_at_least_one(self, tiny):
        found = equal_cost_epochs(self.configs(tiny, 30.0, 31.0, 15.0, 40.0, 3000.0))
        assert found == {"m0": 24, "m1": 23, "m2": 48, "m3": 18, "m4": 1}

    def test_of_iterations(self, tiny):
        configs = self.configs(tiny, 30.0, 31.0)
        configs["m1"].train_cfg = dict(by_epoch=False, max_iters=100)
        with pytest.raises(ConfigError, match="m1 counts iterations"):
            equal_cost_epochs(configs)


def test_without_a_sampler(tiny):
    config = tiny()
    del config.default_hooks["subnet_sampler"]
    with pytest.raises(ConfigError, match="set subnet_sampler"):
        expected_macs_of_image(config)
