"""PSS over one-shot ops: names, the order of an op's choices, and a training step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pss_razor.core import SearchSpace
from pss_razor.engine.launch import load_config
from pss_razor.registry import MODELS

from mmrazor.structures import export_fix_subnet

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def algorithm():
    return MODELS.build(load_config(str(CONFIGS / "pss" / "pss_shufflenetv2_flops_digits.py"), None, "none", "x").model)


def test_groups_are_named_as_mmrazors_subnet_files(algorithm):
    fix_subnet, _ = export_fix_subnet(algorithm.architecture)
    assert set(algorithm.space.names) == set(fix_subnet) and "backbone.layers.0.0" in fix_subnet
    assert {d.kind for d in algorithm.space.dimensions} == {"op"}


def test_largest_and_smallest_are_so_in_flops(algorithm):
    every = algorithm.costs["flops"](algorithm.space.enumerate())
    assert algorithm._resource_range("flops") == (every.min(), every.max())


def test_each_op_is_ordered_by_its_flops(algorithm):
    cost = algorithm.costs["flops"]
    for column, count in enumerate(algorithm.space.shape):
        indices = np.zeros((count, len(algorithm.space)), dtype=np.int64)
        indices[:, column] = np.arange(count)
        assert (np.diff(cost(indices)) > 0).all()
    # at a stride of two the 7 x 7 op is the dearest, elsewhere it is xception
    assert {d.values[-1] for d in algorithm.space.dimensions} == {"shuffle_7x7", "shuffle_xception"}


def test_probabilities_follow_the_order():
    mutator = MODELS.build(dict(type="SubnetMutator"))
    ops = {f"op{i}": dict(type="Identity", in_channels=1, out_channels=1) for i in range(3)}
    mutable = MODELS.build(dict(type="OneShotMutableOP", candidates=ops, module_kwargs=dict(stride=1)))
    mutator.prepare_from_supernet(torch.nn.Sequential(mutable))
    (dimension,) = mutator.space.dimensions
    assert dimension.name == "0" and dimension.values == ("op0", "op1", "op2")
    mutator.space = SearchSpace([type(dimension)(dimension.name, "op", dimension.values, (0.5, 0.3, 0.2))])
    mutator.order_choices({"0": ["op2", "op0", "op1"]})
    (dimension,) = mutator.space.dimensions
    assert dimension.values == ("op2", "op0", "op1") and dimension.probabilities == (0.2, 0.5, 0.3)
    assert mutator.active_subnet["0"] == "op1" == mutable.current_choice


def test_costs_are_those_of_the_exported_networks(algorithm):
    rows = np.random.default_rng(0).integers(algorithm.space.shape, size=(3, len(algorithm.space)))
    for row, params in zip(rows, algorithm.costs["params"](rows), strict=True):
        with algorithm.mutator.active(algorithm.space.decode(row)):
            _, network = export_fix_subnet(algorithm.architecture, slice_weight=True)
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(params * 1e6)


@pytest.mark.parametrize("name", ["pss_shufflenetv2_flops", "pss_shufflenetv2_flops_digits"])
def test_the_optimizer_bears_ops_that_come_late(algorithm, name):
    """torch's fused SGD does not: a parameter whose first gradient comes after others' has no momentum yet."""
    config = load_config(str(CONFIGS / "pss" / f"{name}.py"), None, "none", "unused")
    options = {k: v for k, v in config.optim_wrapper.optimizer.items() if k != "type"}
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.SGD(parameters, **options)
    for used in ([0], [0, 1]):
        for index in used:
            parameters[index].grad = torch.ones(2)
        optimizer.step()
    assert (parameters[1] != 1).all()
