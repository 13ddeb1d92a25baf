"""A subset of a table, and what lies between."""

import dataclasses

import numpy as np
import pytest

from pss_razor.core import ConfigError
from pss_razor.estimators import LatencyTable, latency_cost
from pss_razor.estimators.latency.interpolation import choose_subset, fill_between
from pss_razor.estimators.latency.latency_estimator import block_latencies
from pss_razor.estimators.latency.measure import find_geometries


class TestFillBetween:
    def test_linear_between_known_values(self):
        filled = fill_between(np.array([1.0, np.nan, np.nan, 7.0]), [np.array([0, 1, 2, 3])])
        np.testing.assert_allclose(filled, [1, 3, 5, 7])

    def test_uses_the_coordinates(self):
        filled = fill_between(np.array([0.0, np.nan, 10.0]), [np.array([0, 9, 10])])
        np.testing.assert_allclose(filled, [0, 9, 10])

    def test_never_beyond_the_known_values(self):
        filled = fill_between(np.array([np.nan, 1.0, np.nan, 3.0, np.nan]), [np.arange(5)])
        np.testing.assert_allclose(filled, [np.nan, 1, 2, 3, np.nan])

    def test_known_values_stay_and_the_argument_too(self):
        values = np.array([[1.0, np.nan], [5.0, 2.0]])
        before = values.copy()
        filled = fill_between(values, [np.arange(2), np.arange(2)])
        np.testing.assert_array_equal(values, before)
        np.testing.assert_array_equal(filled, before)

    def test_a_function_linear_in_each_coordinate_is_exact(self):
        axes = [np.array([16, 16, 25, 36, 49]), np.array([8, 16, 24, 32]), np.array([4, 8, 12])]
        a, b, c = np.meshgrid(*axes, indexing="ij")
        values = 3.0 + 0.01 * a * b * c + 0.2 * b
        partial = np.full(values.shape, np.nan)
        corners = np.ix_([0, 1, 4], [0, 3], [0, 2])
        partial[corners] = values[corners]
        np.testing.assert_allclose(fill_between(partial, axes), values)


class TestSubset:
    @pytest.fixture(scope="class")
    def graph(self, build_algorithm):
        return build_algorithm("pss_mbv1_flops").cost_graph

    def test_all_where_they_are_few(self, graph):
        assert choose_subset(graph, 10**6) == set(find_geometries(graph))

    def test_at_most_so_many_and_the_others_lie_between(self, graph):
        places = find_geometries(graph)
        subset = choose_subset(graph, 2000)
        assert len(subset) <= 2000 < len(places) == 14590
        assert subset < set(places)
        # latencies that are multilinear in area and channels, as multiply-accumulates are
        truth = {g: 5.0 + g.in_size**2 * (g.cin * g.cout * 1e-6 + g.cin * 1e-4) for g in places}
        partial = LatencyTable({g: truth[g] for g in places if g in subset}, "cpu", interpolate=True)
        found = block_latencies(partial, graph)
        assert found.keys() == truth.keys()
        np.testing.assert_allclose([found[g] for g in places], [truth[g] for g in places], rtol=1e-9)

    def test_without_leave_to_interpolate_a_missing_block_is_an_error(self, graph):
        table = LatencyTable(dict.fromkeys(choose_subset(graph, 2000), 1.0), "cpu", interpolate=True)
        assert latency_cost(table, graph)(np.zeros((1, len(graph.space)), dtype=int))[0] == pytest.approx(15)
        with pytest.raises(ConfigError, match=r"lacks \d+ blocks of this search space, the first is block\("):
            latency_cost(dataclasses.replace(table, interpolate=False), graph)

    def test_beyond_what_was_measured_is_an_error(self, graph):
        subset = {g: 1.0 for g in choose_subset(graph, 2000) if g.in_size > 4}
        with pytest.raises(ConfigError, match="in_size=4"):
            latency_cost(LatencyTable(subset, "cpu", interpolate=True), graph)

    def test_coordinates_are_area_and_channels(self, graph):
        block = next(b for b in graph.blocks if b.name == "backbone.blocks.12")
        names, geometries = block.groups(graph.space), block.geometries(graph.space)
        for number, axis in enumerate(block.coordinates(graph.space)):
            line = np.moveaxis(geometries, number, 0).reshape(len(axis), -1)[:, 0]
            expected = {"resolution": [g.in_size**2 for g in line], "block12": [g.cin for g in line]}
            expected["block13"] = [g.cout for g in line]
            np.testing.assert_array_equal(axis, expected[names[number]])
