"""Costs of supernets whose ops are chosen, MMRazor's own SPOS supernets, against independent counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pss_razor.estimators import FlopsEstimator, LatencyTable, ParamsEstimator, latency_cost, read_cost_graph
from pss_razor.estimators.latency.interpolation import choose_subset
from pss_razor.estimators.latency.measure import find_geometries
from pss_razor.models import SubnetMutator
from pss_razor.registry import MODELS

import mmrazor
from mmengine.config import Config
from mmengine.registry import init_default_scope

SPOS = Path(mmrazor.__file__).parent / ".mim" / "configs" / "nas" / "mmcls" / "spos"


@pytest.fixture(scope="module", params=["shufflenet", pytest.param("mobilenet", marks=pytest.mark.slow)])
def supernet(request):
    init_default_scope("mmrazor")
    config = Config.fromfile(SPOS / f"spos_{request.param}_supernet_8xb128_in1k.py")
    architecture = MODELS.build(config.model.architecture).eval()
    mutator = SubnetMutator()
    mutator.prepare_from_supernet(architecture)
    return architecture, mutator, read_cost_graph(architecture, mutator.space, mutator.active, input_size=224)


def some_subnets(space, count):
    indices = np.random.default_rng(0).integers(space.shape, size=(count, len(space)))
    return indices, [space.decode(row) for row in indices]


def test_flops_and_params_are_those_of_the_chosen_ops(supernet):
    architecture, mutator, graph = supernet
    indices, subnets = some_subnets(mutator.space, 3)
    flops, params = FlopsEstimator().build_cost(graph)(indices), ParamsEstimator().build_cost(graph)(indices)
    for row, subnet in enumerate(subnets):
        ran = []
        handles = [
            module.register_forward_hook(lambda m, i, o, ran=ran: ran.append(m))
            for module in architecture.modules()
            if not list(module.children())
        ]
        with mutator.active(subnet), FlopCounterMode(display=False) as counter, torch.no_grad():
            architecture(torch.zeros(1, 3, 224, 224))
        for handle in handles:
            handle.remove()
        # the final average pooling, which torch does not count: its input elements
        pooling = architecture.head.fc.in_features * 7 * 7
        assert flops[row] == pytest.approx((counter.get_total_flops() / 2 + pooling) / 1e6, rel=1e-12)
        own = {id(p): p.numel() for module in ran for p in module.parameters(recurse=False)}
        assert params[row] == pytest.approx(sum(own.values()) / 1e6, rel=1e-12)


def test_costs_add_up_over_single_choices(supernet):
    _, _, graph = supernet
    assert all(table.ndim == 1 for _, table in FlopsEstimator().build_cost(graph).terms)


def test_latency_is_of_the_candidates_that_run(supernet):
    _, mutator, graph = supernet
    found = find_geometries(graph)
    table = LatencyTable({g: 1.0 + g.cin / 64 + (g.kernel_size or 0) for g in found}, "cpu")
    indices, subnets = some_subnets(mutator.space, 5)
    latencies_us = latency_cost(table, graph)(indices)
    for row, subnet in enumerate(subnets):
        expected = 0.0
        for block in graph.blocks:
            names, geometries = block.groups(graph.space), block.geometries(graph.space)
            position = tuple(mutator.space.dimensions[mutator.space.position(n)].index(subnet[n]) for n in names)
            if geometries[position] is not None:
                expected += table.latencies_us[geometries[position]]
        assert latencies_us[row] == pytest.approx(expected)
    # nothing lies between two ops: every one is measured
    assert choose_subset(graph, 1) == set(found)


def test_the_real_geometry_of_a_candidate(supernet):
    architecture, mutator, graph = supernet
    for geometry, (name, subnet) in list(find_geometries(graph).items())[1::9]:
        sizes = []
        handle = architecture.get_submodule(name).register_forward_hook(
            lambda m, i, o, sizes=sizes: sizes.append((i[0].shape[1], o.shape[1], i[0].shape[-1]))
        )
        with mutator.active(subnet), torch.no_grad():
            architecture(torch.zeros(1, 3, 224, 224))
        handle.remove()
        ((cin, cout, side),) = sizes
        assert (cin, cout) == (geometry.cin, geometry.cout)
        assert geometry.block_type == "Linear" or side == geometry.in_size
