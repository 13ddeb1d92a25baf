"""Layers whose input is a concatenation."""

import numpy as np
import pytest

from pss_razor.core import Dimension, SearchSpace
from pss_razor.core.cost_graph import Concatenation, CostGraph, Extent, LayerSpec


@pytest.mark.parametrize("kind, has_bias, runs", [("conv", True, False), ("conv", False, True), ("linear", True, True)])
def test_costs_are_those_of_the_channels_in_all(kind, has_bias, runs):
    space = SearchSpace(
        [
            Dimension("a", "channels", (8, 16, 24)),
            Dimension("b", "channels", (16, 32)),
            Dimension("c", "channels", (4, 8)),
            Dimension("depth", "value", (1, 2)),
            Dimension("resolution", "resolution", (32, 64)),
        ]
    )
    a, b, c, area = (np.array(v) for v in ((8, 16, 24), (16, 32), (4, 8), (16, 64)))
    joined = Concatenation((Extent("a", a), Extent(None, np.array([5])), Extent("b", 2 * b)))
    areas = Extent("resolution", area)
    depth = Extent("depth", np.array([0, 1])) if runs else None
    layer = LayerSpec("layer", kind, 9, has_bias, joined, Extent("c", c), areas, areas, depth)
    assert layer.is_searched
    graph = CostGraph(space, (layer,), ())
    rows = space.enumerate()
    inputs = a[rows[:, 0]] + 5 + 2 * b[rows[:, 1]]
    running = rows[:, 3] if runs else 1
    macs = running * inputs * c[rows[:, 2]] * 9 * area[rows[:, 4]]
    params = running * c[rows[:, 2]] * (inputs * 9 + int(has_bias))
    np.testing.assert_allclose(graph.flops(rows), macs * 1e-6, rtol=1e-12)
    np.testing.assert_allclose(graph.params(rows), params * 1e-6, rtol=1e-12)
    assert len(graph.flops.products) == len(graph.params.products) == 1


def test_a_layer_without_a_search_group_is_not_searched():
    one = Extent(None, np.array([1]))
    assert not LayerSpec("layer", "conv", 1, False, Concatenation((one, one)), one, one, one).is_searched
    searched = Concatenation((one, Extent("a", np.array([8, 16]))))
    assert LayerSpec("layer", "conv", 1, False, searched, one, one, one).is_searched
