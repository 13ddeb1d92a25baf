"""Listing the combinations of an interval of costs, against all combinations."""

import itertools

import numpy as np
import pytest

from pss_razor.core.sampling.chain_listing import ChainListing, ends, round_costs


def make_costs(widths, seed, whole):
    generator = np.random.default_rng(seed)
    shapes = [(1, widths[0]), *itertools.pairwise(widths)]
    costs = [generator.random(shape) * 20 for shape in shapes]
    return [np.rint(cost) for cost in costs] if whole else costs


def all_combinations(costs):
    rows = np.array(list(itertools.product(*(range(cost.shape[1]) for cost in costs))))
    before = np.column_stack((np.zeros(len(rows), dtype=int), rows[:, :-1]))
    return rows, sum(cost[before[:, i], rows[:, i]] for i, cost in enumerate(costs))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("width", [0.3, 1.0, 7.0])
def test_finds_all_and_no_other(whole, width):
    costs = make_costs((3, 4, 2, 5), 0, whole)
    rows, totals = all_combinations(costs)
    units = [cost.astype(np.int64) for cost in costs] if whole else None
    listing = ChainListing([cost / width for cost in costs], units, 200)
    for low, high in [(0, 25), (40, 41), (40.0, 40.0), (60, 100), (200, 300)]:
        wanted = rows[(totals >= low) & (totals <= high)]

        def accepts(found, low=low, high=high):
            (places,) = np.ravel_multi_index(found.T, (3, 4, 2, 5))[None]
            return (totals[places] >= low) & (totals[places] <= high)

        found = listing.find((low / width, high / width, 1e-9), accepts)
        assert sorted(map(tuple, found)) == sorted(map(tuple, wanted))


def test_more_than_wanted_is_nothing():
    listing = ChainListing(make_costs((3, 4, 2, 5), 0, False), None, 20)
    assert listing.find((0, 1e3, 0), lambda rows: np.ones(len(rows), dtype=bool)) is None


def test_equal_costs_are_kept_once():
    """2^30 combinations have 31 costs."""
    costs = [np.tile([0.0, 1.0], (1, 1)), *(np.tile([0.0, 1.0], (2, 1)) for _ in range(29))]
    listing = ChainListing(costs, [cost.astype(np.int64) for cost in costs], 100)
    found = listing.find((0, 1, 0.1), lambda rows: rows.sum(axis=1) <= 1)
    assert len(found) == 31 and len(np.unique(found, axis=0)) == 31 and (found.sum(axis=1) <= 1).all()
    assert listing.find((2, 2, 0.1), lambda rows: rows.sum(axis=1) == 2) is None, "435"


def test_memory_is_bounded():
    listing = ChainListing([np.full((1, 2), 1e9), np.full((2, 2), 1e9)], None, 10)
    assert listing.find((2e9, 2e9, 1), lambda rows: np.ones(len(rows), dtype=bool)) is None


@pytest.mark.parametrize("seed", range(3))
def test_ends_and_rounding(seed):
    costs = make_costs((3, 4, 5), seed, False)
    rows, totals = all_combinations(costs)
    assert ends(costs) == pytest.approx((totals.min(), totals.max()))
    steps, (least, most) = round_costs(costs)
    before = np.column_stack((np.zeros(len(rows), dtype=int), rows[:, :-1]))
    rounding = totals - sum(step[before[:, i], rows[:, i]] for i, step in enumerate(steps))
    assert (least, most) == pytest.approx((rounding.min(), rounding.max()))
