"""Costs of MobileNetV2's subnets against the authors' figures, torch's own counter and the converted network."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pss_razor.core import Subnet
from pss_razor.estimators import FlopsEstimator, ParamsEstimator
from pss_razor.registry import TASK_UTILS

from mmrazor.models.architectures.dynamic_ops import DynamicMixin

GROUPS = ("stem", *(f"stage{stage}" for stage in range(1, 8)))


def random_subnets(algorithm, count, seed=0):
    generator = np.random.default_rng(seed)
    rows = [generator.integers(algorithm.space.shape) for _ in range(count)]
    return [algorithm.space.decode(row) for row in rows]


def static_copy(supernet: nn.Module) -> nn.Module:
    """The active subnet as plain torch layers."""

    def convert(module):
        for name, child in module.named_children():
            if isinstance(child, DynamicMixin) and hasattr(child, "weight"):
                setattr(module, name, child.to_static_op())
            else:
                convert(child)

    result = copy.deepcopy(supernet)
    convert(result)
    return result


def test_flops_of_all_reference_subnets_in_one_call(reference, imagenet_mbv2):
    records = json.loads((reference / "mbv2_subnet_costs.json").read_text())["subnets"]
    assert len(records) == 402
    subnets = [
        {**dict(zip(GROUPS, record["channels"][:8], strict=True)), "resolution": record["resolution"]}
        for record in records
    ]
    mflops = imagenet_mbv2.costs["flops"](imagenet_mbv2.space.encode(subnets))
    assert mflops.shape == (402,)
    np.testing.assert_allclose(mflops, [record["mflops"] for record in records], rtol=1e-6)


@pytest.mark.parametrize(("name", "mflops"), [("largest", 300.84), ("smallest", 69.15)])
def test_flops_of_the_papers_extremes(imagenet_mbv2, name, mflops):
    subnet = getattr(imagenet_mbv2.space, name)
    assert imagenet_mbv2.costs["flops"](imagenet_mbv2.space.encode([subnet]))[0] == pytest.approx(mflops, abs=5e-3)


def test_flops_equal_torchs_counter_on_the_running_supernet(imagenet_mbv2):
    subnets = random_subnets(imagenet_mbv2, 10)
    costs = imagenet_mbv2.costs["flops"](imagenet_mbv2.space.encode(subnets))
    images = torch.zeros(1, 3, 224, 224)
    imagenet_mbv2.eval()
    for subnet, cost in zip(subnets, costs, strict=True):
        with imagenet_mbv2.mutator.active(subnet), torch.no_grad(), FlopCounterMode(display=False) as counter:
            imagenet_mbv2(images, mode="tensor")
        side = -(-subnet["resolution"] // 32)
        assert round(cost * 1e6) == counter.get_total_flops() // 2 + 1280 * side**2


def test_params_equal_those_of_the_converted_network(imagenet_mbv2):
    subnets = [imagenet_mbv2.space.largest, imagenet_mbv2.space.smallest, *random_subnets(imagenet_mbv2, 4, seed=1)]
    costs = imagenet_mbv2.costs["params"](imagenet_mbv2.space.encode(subnets))
    for subnet, cost in zip(subnets, costs, strict=True):
        with imagenet_mbv2.mutator.active(subnet):
            static = static_copy(imagenet_mbv2.architecture)
        assert not any(isinstance(m, DynamicMixin) and hasattr(m, "weight") for m in static.modules())
        assert round(cost * 1e6) == sum(parameter.numel() for parameter in static.parameters())
    assert round(costs[0] * 1e6) == sum(p.numel() for p in imagenet_mbv2.architecture.parameters()) == 3504872


@pytest.mark.parametrize(("name", "largest"), [("pss_mbv1_flops", 568.8), ("pss_r50_flops", 4089.3)])
def test_other_supernets_equal_torchs_counter(build_algorithm, name, largest):
    algorithm = build_algorithm(name).eval()
    subnets = [algorithm.space.largest, algorithm.space.smallest, *random_subnets(algorithm, 2, seed=3)]
    rows = algorithm.space.encode(subnets)
    flops, params = algorithm.costs["flops"](rows), algorithm.costs["params"](rows)
    assert flops[0] == pytest.approx(largest, abs=0.05)
    for subnet, macs, weights in zip(subnets, flops, params, strict=True):
        pooled = []
        pooling = algorithm.architecture.neck.register_forward_pre_hook(
            lambda module, inputs, pooled=pooled: pooled.append(inputs[0][-1].numel())
        )
        with algorithm.mutator.active(subnet), torch.no_grad(), FlopCounterMode(display=False) as counter:
            algorithm(torch.zeros(1, 3, 224, 224), mode="tensor")
            static = static_copy(algorithm.architecture)
        pooling.remove()
        assert round(macs * 1e6) == counter.get_total_flops() // 2 + pooled[0]
        assert round(weights * 1e6) == sum(parameter.numel() for parameter in static.parameters())


def test_resolution_changes_flops_but_not_params(imagenet_mbv2):
    large = imagenet_mbv2.space.largest
    rows = imagenet_mbv2.space.encode([large, Subnet({**large, "resolution": 128})])
    assert np.ptp(imagenet_mbv2.costs["params"](rows)) == 0
    assert np.ptp(imagenet_mbv2.costs["flops"](rows)) > 100


def test_every_single_width_increases_both_costs(imagenet_mbv2):
    space = imagenet_mbv2.space
    largest = np.array(space.shape) - 1
    for column, name in enumerate(space.names):
        rows = np.repeat(largest[None], space.shape[column], axis=0)
        rows[:, column] = np.arange(space.shape[column])
        assert (np.diff(imagenet_mbv2.costs["flops"](rows)) > 0).all(), name
        if name != "resolution":
            assert (np.diff(imagenet_mbv2.costs["params"](rows)) > 0).all(), name


def test_number_of_classes_counts(build_algorithm):
    few = build_algorithm(
        **{"architecture.head.num_classes": 10, "constraints": [dict(metric="flops", first=70, last=290, step=10)]}
    )
    row = few.space.encode([few.space.largest])
    assert few.costs["flops"](row)[0] == pytest.approx(300.836992 - 990 * 1280e-6, rel=1e-9)
    assert few.costs["params"](row)[0] == pytest.approx(3.504872 - 990 * 1281e-6, rel=1e-9)


def test_mmrazors_estimate_gives_the_active_subnet(imagenet_mbv2):
    subnet = random_subnets(imagenet_mbv2, 1, seed=2)[0]
    with imagenet_mbv2.mutator.active(subnet):
        flops = imagenet_mbv2.estimators["flops"].estimate(imagenet_mbv2)
        params = imagenet_mbv2.estimators["params"].estimate(imagenet_mbv2)
    row = imagenet_mbv2.space.encode([subnet])
    assert flops == {"flops": imagenet_mbv2.costs["flops"](row)[0]}
    assert params == {"params": imagenet_mbv2.costs["params"](row)[0]}
    assert imagenet_mbv2.mutator.active_subnet == imagenet_mbv2.space.largest
    with pytest.raises(ValueError, match="takes no flops_params_cfg"):
        imagenet_mbv2.estimators["flops"].estimate(imagenet_mbv2, flops_params_cfg=dict(input_shape=(1, 3, 224, 224)))


@pytest.mark.parametrize(("name", "cls"), [("FlopsEstimator", FlopsEstimator), ("ParamsEstimator", ParamsEstimator)])
def test_estimators_are_registered(name, cls):
    estimator = TASK_UTILS.build(dict(type=name))
    assert type(estimator) is cls and estimator.unit.startswith("M")
