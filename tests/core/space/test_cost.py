import itertools

import numpy as np
import pytest
from mbv2_by_hand import mbv2_cost, mbv2_space, reference_subnets

from pss_razor.core import AdditiveCost, CostTerm, Dimension, ProductTerm, SearchSpace


def make_space(shape):
    return SearchSpace([Dimension(f"d{i}", "value", tuple(range(n))) for i, n in enumerate(shape)])


def brute_force(space, terms, scale):
    """Sum of each term's own entry, subnet by subnet."""
    costs = []
    for row in itertools.product(*map(range, space.shape)):
        chosen = dict(zip(space.names, row, strict=True))
        costs.append(sum(t.table[tuple(chosen[name] for name in t.dimensions)] for t in terms) * scale)
    return np.array(costs)


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_sum_of_random_terms(seed):
    rng = np.random.default_rng(seed)
    space = make_space(rng.integers(1, 5, size=rng.integers(1, 6)).tolist())
    terms = []
    for _ in range(rng.integers(1, 10)):
        columns = rng.permutation(len(space))[: rng.integers(0, min(4, len(space)) + 1)]  # any order, none: a constant
        shape = tuple(space.shape[column] for column in columns)
        terms.append(CostTerm(tuple(space.names[column] for column in columns), rng.normal(size=shape)))
    before = [term.table.copy() for term in terms]
    cost = AdditiveCost(space, terms, scale=2.5)
    np.testing.assert_allclose(cost(space.enumerate()), brute_force(space, terms, 2.5), rtol=1e-10, atol=1e-10)
    for term, table in zip(terms, before, strict=True):
        np.testing.assert_array_equal(term.table, table, err_msg="the caller's table changed")
    for left, right in itertools.permutations([set(columns) for columns, _ in cost.terms], 2):
        assert not left <= right, "a term could have been folded into another"


def test_permuted_axes_merge_into_one_table():
    space = make_space((2, 3, 4))
    table = np.arange(24.0).reshape(4, 2, 3)
    terms = [CostTerm(("d2", "d0", "d1"), table), CostTerm(("d1", "d0", "d2"), 100.0 * np.ones((3, 2, 4)))]
    cost = AdditiveCost(space, terms)
    assert len(cost.terms) == 1
    assert cost(np.array([[1, 2, 3], [0, 1, 0], [1, 0, 2]])).tolist() == [123.0, 101.0, 115.0]


def test_subsets_and_constants_fold():
    space = make_space((2, 3))
    terms = [
        CostTerm((), np.array(1000.0)),
        CostTerm(("d1",), np.array([10.0, 20.0, 30.0])),
        CostTerm(("d0",), np.array([100.0, 200.0])),
        CostTerm(("d0", "d1"), np.arange(6.0).reshape(2, 3)),
    ]
    cost = AdditiveCost(space, terms)
    assert len(cost.terms) == 1
    assert cost(space.enumerate()).tolist() == [1110.0, 1121.0, 1132.0, 1213.0, 1224.0, 1235.0]


def test_terms_that_overlap_only_in_part_stay_apart():
    space = make_space((2, 2, 2))
    table = np.array([[1.0, 2.0], [3.0, 4.0]])
    cost = AdditiveCost(space, [CostTerm(("d0", "d1"), table), CostTerm(("d1", "d2"), 10 * table)])
    assert len(cost.terms) == 2
    assert cost(np.array([[1, 0, 1]])).tolist() == [23.0]


@pytest.mark.parametrize("terms", [[], [CostTerm((), np.array(7.0))]])
def test_constant_costs(terms):
    cost = AdditiveCost(make_space((2, 3)), terms, scale=2)
    assert cost(np.zeros((4, 2), dtype=np.int64)).tolist() == [14.0 if terms else 0.0] * 4


def test_rows_in_any_order_and_none():
    space = make_space((3, 2))
    cost = AdditiveCost(
        space, [CostTerm(("d0",), np.array([1, 2, 4])), CostTerm(("d1",), np.array([8, 16]))], scale=0.5
    )
    result = cost(np.array([[2, 1], [0, 0], [2, 1]]))
    assert result.dtype == np.float64
    assert result.tolist() == [10.0, 4.5, 10.0]
    assert cost(space.encode([])).shape == (0,)


@pytest.mark.parametrize("dimensions", [("d0", "d1"), ("d1",), ()])
def test_a_table_of_the_wrong_shape_is_an_error(dimensions):
    with pytest.raises(ValueError, match=r"has shape \(3, 2\), not"):
        AdditiveCost(make_space((2, 3)), [CostTerm(dimensions, np.zeros((3, 2)))])


def test_mbv2_equals_the_reference_figures():
    space = mbv2_space()
    subnets = reference_subnets()
    assert len(subnets) == 402
    rows = [{**dict(zip(space.names, s["channels"], strict=False)), "resolution": s["resolution"]} for s in subnets]
    mflops = np.array([subnet["mflops"] for subnet in subnets])
    np.testing.assert_allclose(mbv2_cost(space)(space.encode(rows)), mflops, rtol=1e-12)


def test_mbv2_largest_and_smallest():
    space = mbv2_space()
    ends = space.encode([space.largest, space.smallest])
    assert mbv2_cost(space)(ends) == pytest.approx([300.836992, 69.150208], rel=1e-12)


def test_integer_tables_do_not_overflow():
    space = make_space((2,))
    term = CostTerm(("d0",), np.array([2**30, 2**31 - 1], dtype=np.int32))
    assert AdditiveCost(space, [term, term])(space.enumerate()).tolist() == [2**31, 2**32 - 2]


def test_is_detached_from_the_callers_table():
    space = make_space((2,))
    table = np.array([1.0, 2.0])
    cost = AdditiveCost(space, [CostTerm(("d0",), table)])
    table[:] = 100.0
    assert cost(space.enumerate()).tolist() == [1.0, 2.0]


def test_a_dimension_named_twice_means_the_diagonal():
    space = make_space((2, 3, 2))
    diagonal = CostTerm(("d1", "d1"), np.arange(9.0).reshape(3, 3))
    cost = AdditiveCost(space, [diagonal, CostTerm(space.names, np.ones(space.shape))])
    assert cost(space.enumerate()).tolist() == [1.0, 1.0, 5.0, 5.0, 9.0, 9.0] * 2


class TestProducts:
    """Sums of sizes times a table."""

    def test_equal_the_sum_by_hand(self):
        space = make_space((2, 3, 4))
        sizes = (("d0", np.array([2, 5])), ("d2", np.array([1, 4, 6, 9])), ("d0", np.array([10, 20])))
        factor = np.array([1.0, -2.0, 7.0])
        cost = AdditiveCost(space, [ProductTerm(sizes, CostTerm(("d1",), factor)), CostTerm(("d1",), factor)], scale=2)
        expected = [
            2 * factor[b] * (1 + [2, 5][a] + [10, 20][a] + [1, 4, 6, 9][c]) for a, b, c in space.enumerate().tolist()
        ]
        assert cost(space.enumerate()).tolist() == expected
        assert len(cost.products) == 1 and [columns for columns, _ in cost.other_terms] == [(1,)]

    @pytest.mark.parametrize(
        "summed, other",
        [(["d0", "d0"], "d1"), (["d0", "one"], "d1"), (["d0", "d1"], "one"), (["d0", "d1"], "resolution")],
    )
    def test_are_kept_only_where_they_tie_groups(self, summed, other):
        """Of a single group's sizes, or times a table over no group, they are tables like others."""
        dimensions = [Dimension(name, "channels", (0, 1)) for name in ("d0", "d1")]
        dimensions += [Dimension("one", "channels", (3,)), Dimension("resolution", "resolution", (32, 64))]
        space = SearchSpace(dimensions)
        sizes = tuple((name, 1 + np.arange(space.shape[space.position(name)])) for name in summed)
        factor = CostTerm((other,), 5.0 + np.arange(space.shape[space.position(other)]))
        cost = AdditiveCost(space, [ProductTerm(sizes, factor)])
        assert cost.products == () and cost.other_terms is cost.terms
        assert cost(np.array([[1, 1, 0, 0]]))[0] == sum(2 - (name == "one") for name in summed) * (5 + (other == "d1"))


def test_dimensions_that_make_no_difference_are_dropped():
    space = make_space((2, 3, 4))
    table = np.broadcast_to(np.array([1.0, 2.0, 4.0])[None, :, None], (2, 3, 4))
    sizes = (("d0", np.array([1, 2])), ("d1", np.array([1, 2, 3])))
    factor = CostTerm(("d2", "d1"), np.broadcast_to(np.arange(4.0)[:, None], (4, 3)))
    cost = AdditiveCost(space, [CostTerm(space.names, table), ProductTerm(sizes, factor)])
    assert [columns for columns, _ in cost.other_terms] == [(1,)]
    assert cost.products[0].factor.dimensions == ("d2",)
    assert cost(np.array([[1, 2, 3]])).tolist() == [4 + 3 * 5]
