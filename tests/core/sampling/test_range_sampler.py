"""Draws from ranges of resources are exact, and the ranges are honoured all at once."""

import numpy as np
import pytest

from pss_razor.core import (
    AdditiveCost,
    ConfigError,
    CostTerm,
    Dimension,
    EnumeratedSampler,
    RangeSampler,
    SearchSpace,
    UnreachableTargetError,
)


def op_space(blocks: int, ops: int = 4) -> SearchSpace:
    return SearchSpace([Dimension(f"block{i}", "op", tuple(f"op{j}" for j in range(ops))) for i in range(blocks)])


def op_cost(space: SearchSpace, seed: int) -> AdditiveCost:
    generator = np.random.default_rng(seed)
    terms = [
        CostTerm((name,), generator.uniform(1, 20, size)) for name, size in zip(space.names, space.shape, strict=True)
    ]
    return AdditiveCost(space, [CostTerm((), np.array(7.0)), *terms])


@pytest.fixture(scope="module")
def small():
    """A space that can be enumerated: 4,096 subnets."""
    space = op_space(6)
    return {"flops": op_cost(space, 0), "params": op_cost(space, 1), "latency_cpu": op_cost(space, 2)}


@pytest.fixture(scope="module")
def large():
    """As large as MMRazor's MobileNet supernet: 21 blocks of 7 ops."""
    space = op_space(21, 7)
    return {"flops": op_cost(space, 3), "params": op_cost(space, 4)}


def test_draws_have_the_spaces_own_distribution_in_the_range(small):
    space = small["flops"].space
    every = space.enumerate()
    resources = {metric: cost(every) for metric, cost in small.items()}
    ranges = {metric: (np.quantile(values, 0.2), np.quantile(values, 0.6)) for metric, values in resources.items()}
    sampler = RangeSampler(small, ranges)
    inside = np.all([(v >= ranges[m][0]) & (v <= ranges[m][1]) for m, v in resources.items()], axis=0)
    draws = sampler.draw_many(200 * inside.sum(), np.random.default_rng(0))
    counts = np.bincount(np.ravel_multi_index(draws.T, space.shape), minlength=space.size)
    assert (counts[~inside] == 0).all() and 20 < inside.sum() < 1000
    # 200 draws are expected of each subnet: a chi-square of about one for each degree of freedom
    assert ((counts[inside] - 200) ** 2 / 200).sum() / inside.sum() == pytest.approx(1, abs=0.4)


def test_bounds_belong_to_the_range(small):
    cost = small["flops"]
    resources = np.sort(cost(cost.space.enumerate()))
    low, high = resources[10], resources[12]
    sampler = RangeSampler(small, {"flops": (low, high)})
    drawn = np.unique(cost(sampler.draw_distinct(99, np.random.default_rng(0))))
    np.testing.assert_array_equal(drawn, resources[10:13])


def test_a_rare_range_of_a_space_that_cannot_be_enumerated(large):
    assert large["flops"].space.size > EnumeratedSampler.max_size
    cost = large["flops"]
    blind = np.random.default_rng(0).integers(7, size=(100_000, 21))
    high = cost(blind).min()  # one of 100,000 blind draws meets it
    sampler = RangeSampler(large, {"flops": (0, high)})
    draws = sampler.draw_distinct(50, np.random.default_rng(0))
    assert len(np.unique(draws, axis=0)) == 50
    assert (cost(draws) <= high).all()
    assert cost(draws).max() > 0.97 * high, "most of the space's subnets in the range are at its end"


def test_a_narrow_range_is_met(large):
    cost = large["flops"]
    middle = float(cost(np.full((1, 21), 3))[0])
    draws = RangeSampler(large, {"flops": (middle - 0.01, middle + 0.01)}).draw_many(50, np.random.default_rng(0))
    assert (abs(cost(draws) - middle) <= 0.01 + 1e-9).all()


def test_several_ranges_at_once(large):
    blind = np.random.default_rng(0).integers(7, size=(100_000, 21))
    resources = {metric: cost(blind) for metric, cost in large.items()}
    ranges = {
        "flops": (0.0, float(np.quantile(resources["flops"], 0.001))),
        "params": (float(np.quantile(resources["params"], 0.9)), 1e6),
    }
    sampler = RangeSampler(large, ranges)
    draws = sampler.draw_many(50, np.random.default_rng(0))
    assert sampler.accepts(draws).all()
    assert (large["flops"](draws) <= ranges["flops"][1]).all() and (large["params"](draws) >= ranges["params"][0]).all()
    assert sampler._leading == "flops", "the rarer of the two"


def test_distinct_draws_end_with_the_subnets_that_there_are(small):
    cost = small["flops"]
    resources = np.sort(cost(cost.space.enumerate()))
    sampler = RangeSampler(small, {"flops": (0, resources[4])})
    known = set()
    first = sampler.draw_distinct(3, np.random.default_rng(0), known)
    rest = sampler.draw_distinct(10, np.random.default_rng(0), known)
    assert len(first) == 3 and len(rest) == 2 and len(known) == 5
    assert len(sampler.draw_distinct(10, np.random.default_rng(0), known)) == 0


def test_the_same_generator_gives_the_same_draws(large):
    sampler = RangeSampler(large, {"flops": (0, 200)})
    first, second = (sampler.draw_distinct(20, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


class TestErrors:
    def test_an_unmeasured_metric(self, small):
        with pytest.raises(ConfigError, match=r"'latency' is asked for, which is not measured.*latency_cpu"):
            RangeSampler(small, {"latency": (0, 10)})

    @pytest.mark.parametrize("bad", [(5, 3), (0, float("inf")), (float("nan"), 3)])
    def test_no_range(self, small, bad):
        with pytest.raises(ConfigError, match="the smaller one first"):
            RangeSampler(small, {"flops": bad})

    def test_none(self, small):
        with pytest.raises(ConfigError, match="give at least one"):
            RangeSampler(small, {})

    @pytest.mark.parametrize("bad", [(0, 1), (1000, 2000)])
    def test_out_of_reach(self, small, bad):
        with pytest.raises(UnreachableTargetError, match=r"no subnet has flops from .*: the search space covers"):
            RangeSampler(small, {"flops": bad})

    def test_ranges_that_exclude_each_other(self, small):
        space = small["flops"].space
        twice = AdditiveCost(space, [CostTerm(tuple(space.names[c] for c in columns), 2 * table)
                                     for columns, table in small["flops"].terms])  # fmt: skip
        low = float(small["flops"](np.zeros((1, 6), int))[0])
        sampler = RangeSampler({"flops": small["flops"], "params": twice},
                               {"flops": (low, low + 5), "params": (2 * low + 11, 1000)})  # fmt: skip
        with pytest.raises(UnreachableTargetError, match=r"0 of 5 subnets in all ranges.*params = .* is wanted"):
            sampler.draw_many(5, np.random.default_rng(0))
