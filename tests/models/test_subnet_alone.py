"""A subnet alone is trained as the plain network that it is."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pss_razor.core import ConfigError, build_conditional_sampler
from pss_razor.models import SlicedConv2d, SubnetAlone
from pss_razor.models.static_subnet import WithoutResize
from pss_razor.static.trace import make_static

from mmengine.optim import OptimWrapper

ALONE = "default_hooks.subnet_sampler"
BASELINE = dict(type="BaselineSamplerHook", method="uniform", _delete_=True)


@pytest.fixture(scope="module")
def middle(small_mbv2):
    """Neither the first nor the last choice of most groups."""
    return small_mbv2.space.decode(np.array(small_mbv2.space.shape) // 2)


@pytest.fixture
def alone(build_small, middle):
    return build_small(type="SubnetAlone", subnet=dict(middle)).train()


def test_the_space_is_the_subnet(alone, small_mbv2, middle):
    assert isinstance(alone, SubnetAlone)
    assert alone.space.size == 1 and alone.space.largest == alone.space.smallest == middle
    for metric, cost in alone.costs.items():
        expected = small_mbv2.costs[metric](small_mbv2.space.encode([middle]))
        assert cost(alone.space.encode([middle])) == pytest.approx(expected)


def test_its_target_is_one_of_the_whole_space(alone, small_mbv2, middle):
    assert alone.constraints == small_mbv2.constraints
    (constraint,) = alone.constraints
    sampler = build_conditional_sampler(alone.costs["flops"], constraint)
    index = constraint.nearest_target_index(alone.costs["flops"](alone.space.encode([middle])))[0]
    assert sampler.reachable_targets == (constraint.targets[index],)


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_by_name(build_small, small_mbv2, which):
    assert build_small(type="SubnetAlone", subnet=which).subnet == getattr(small_mbv2.space, which)


@pytest.mark.parametrize("subnet", ["middle", {"stem": 24}, {"stem": 25}])
def test_no_such_subnet(build_small, subnet):
    with pytest.raises(ConfigError):
        build_small(type="SubnetAlone", subnet=subnet)


class AsTheyAre(nn.Module):
    """A preprocessor that leaves images in double precision."""

    def forward(self, data, training=False):
        return {**data, "inputs": data["inputs"].double()}


def test_trains_as_a_plain_network(alone, make_batch, middle):
    """Torch's own layers with the subnet's weights, cross-entropy and SGD, by hand; rounding would hide mistakes."""
    alone.data_preprocessor = AsTheyAre()
    alone.double()
    plain = make_static(copy.deepcopy(WithoutResize(alone.architecture))).train()
    assert not any(isinstance(module, SlicedConv2d) for module in plain.modules())
    assert sum(p.numel() for p in plain.parameters()) < sum(p.numel() for p in alone.architecture.parameters())
    ours = OptimWrapper(torch.optim.SGD(alone.parameters(), lr=0.05, momentum=0.9, nesterov=True))
    theirs = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    size = middle["resolution"]
    for step in range(3):
        batch = make_batch(seed=step)
        logged = alone.train_step(batch, ours)
        labels = torch.cat([sample.gt_label.label for sample in batch["data_samples"]])
        images = F.interpolate(batch["inputs"].double(), (size, size), mode="bilinear", align_corners=True)
        loss = F.cross_entropy(plain(images).float(), labels)
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert logged["loss"].item() == pytest.approx(loss.item(), rel=1e-5) and logged["score"] == -logged["loss"]
    expected = dict(plain.named_parameters())
    for name, module in WithoutResize(alone.architecture).named_modules():
        if isinstance(module, SlicedConv2d):
            weight = module.get_dynamic_params()[0]
            torch.testing.assert_close(weight, expected[f"{name}.weight"], rtol=1e-4, atol=1e-6)


def test_weights_start_as_those_of_a_network_of_its_size(build_small, small_mbv2):
    """std = sqrt(2 / (k² · cout)) of the channels that it has, as the supernet's is of all."""
    alone = build_small(type="SubnetAlone", subnet="smallest")
    for owner in (alone, small_mbv2):
        owner.mutator.activate(owner.space.largest)
        own = [m.get_dynamic_params()[0] for m in owner.architecture.modules() if isinstance(m, SlicedConv2d)]
        large = [weight for weight in own if weight.numel() > 10_000]
        assert len(large) > 5
        for weight in large:
            wanted = (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5
            assert weight.std().item() == pytest.approx(wanted, rel=0.05)


def test_costs_a_forward_and_a_backward_pass(alone, make_batch, middle):
    alone.train_step(make_batch(), OptimWrapper(torch.optim.SGD(alone.parameters(), lr=0.05)))
    assert alone.passes_of_step == [(middle, 3)]


def test_trains_tests_and_resumes(make_runner, tmp_path, assert_same_training):
    options = {
        "model.type": "SubnetAlone",
        "model.subnet": "smallest",
        ALONE: BASELINE,
        "val_cfg": None,
        "val_dataloader": None,
        "val_evaluator": None,
        "train_cfg.max_epochs": 2,
    }
    runner = make_runner(tmp_path / "whole", options)
    runner.train()
    checkpoint = str(tmp_path / "whole" / "epoch_2.pth")
    half = {**options, "load_from": str(tmp_path / "whole" / "epoch_1.pth"), "resume": True}
    make_runner(tmp_path / "resumed", half).train()
    assert_same_training(checkpoint, tmp_path / "resumed" / "epoch_2.pth")

    tester = make_runner(tmp_path / "test", {**options, "load_from": checkpoint})
    tester.test()
    results = json.loads((tmp_path / "test" / "pool_results.json").read_text())
    names = [record["name"] for record in results["subnets"]]
    assert names[:2] == ["largest", "smallest"] and len({json.dumps(r["metrics"]) for r in results["subnets"]}) == 1
    smallest = results["subnets"][0]
    assert {name.split("_")[0] for name in names[2:]} == {"flops", "params"}
    assert results["training"] == {
        "images": 192,
        "steps": 12,
        "gmacs": pytest.approx(3 * 192 * smallest["resources"]["flops"] / 1e3),
    }
