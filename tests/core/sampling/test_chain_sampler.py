"""The chain sampler against enumeration, on spaces that both can do."""

import numpy as np
import pytest
from mbv2_by_hand import mbv2_cost, mbv2_space
from scipy import stats

from pss_razor.core import (
    AdditiveCost,
    ChainSampler,
    ConfigError,
    Constraint,
    CostTerm,
    Dimension,
    EnumeratedSampler,
    PrioritizedSubnetSampler,
    SearchSpace,
    UnreachableTargetError,
    build_conditional_sampler,
)
from pss_razor.core.sampling import binned_sampler


def chain_cost(widths, resolutions, seed=0, scale=1.0):
    """A random chain: unary and neighbouring costs that grow with the resolution, uneven probabilities."""
    generator = np.random.default_rng(seed)

    def dimension(name, kind, n):
        probabilities = generator.dirichlet(np.full(n, 3.0))
        return Dimension(name, kind, tuple(range(n)), tuple(probabilities / probabilities.sum()))

    dimensions = [dimension(f"w{i}", "channels", n) for i, n in enumerate(widths)]
    dimensions.append(dimension("resolution", "resolution", resolutions))
    space = SearchSpace(dimensions)
    growth = np.linspace(1, 2, resolutions)
    terms = [CostTerm(("w0", "resolution"), np.sort(generator.random(widths[0]))[:, None] * growth)]
    for i in range(1, len(widths)):
        pair = np.sort(np.sort(generator.random((widths[i - 1], widths[i])), axis=0), axis=1)
        terms.append(CostTerm((f"w{i - 1}", f"w{i}", "resolution"), pair[:, :, None] * growth))
    terms += [
        CostTerm((), np.array(0.5)),
        CostTerm(("resolution",), growth),
        CostTerm((f"w{i}",), generator.random(widths[-1])),
    ]
    return AdditiveCost(space, terms, scale)


def exact_distribution(cost, constraint, target):
    """Probability of every subnet conditional on a target, by enumeration."""
    indices = cost.space.enumerate()
    inside = constraint.nearest_target_index(cost(indices)) == constraint.targets.index(target)
    mass = np.where(inside, cost.space.probabilities(indices), 0.0)
    return mass / mass.sum()


def chi_square(draws, space, expected):
    """p-value of draws (N, D); subnets expected less than five times are one cell."""
    counts = np.bincount(np.ravel_multi_index(draws.T, space.shape), minlength=space.size)
    assert not counts[expected == 0].any()
    wanted = expected * len(draws)
    common = wanted >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(wanted[common], wanted[~common].sum())
    keep = wanted > 0
    return stats.chisquare(observed[keep], wanted[keep]).pvalue


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_every_target_has_the_exact_conditional_distribution(seed, scale):
    cost = chain_cost((3, 4, 2, 5), 3, seed, scale)
    constraint = Constraint("flops", 2 * scale, 12 * scale, 2 * scale)
    sampler = ChainSampler(cost, constraint)
    enumerated = EnumeratedSampler(cost, constraint)
    assert sampler.reachable_targets == enumerated.reachable_targets
    assert sampler.resource_range == pytest.approx(enumerated.resource_range, rel=1e-12)
    generator = np.random.default_rng(seed)
    p_values = []
    for target in sampler.reachable_targets:
        draws, resources = sampler.draw_many(target, 20_000, generator)
        np.testing.assert_allclose(resources, cost(draws), rtol=1e-12)
        p_values.append(chi_square(draws, cost.space, exact_distribution(cost, constraint, target)))
    assert min(p_values) > 1e-3 / len(p_values)


@pytest.mark.parametrize("target", [70, 150, 300])
def test_mobilenet_v2_as_a_chain(target):
    cost = mbv2_cost(mbv2_space())
    constraint = Constraint("flops", 70, 300, 10)
    sampler = ChainSampler(cost, constraint)
    draws, _ = sampler.draw_many(target, 20_000, np.random.default_rng(target))
    assert chi_square(draws, cost.space, exact_distribution(cost, constraint, target)) > 1e-3


def test_tails_of_tiny_probability_keep_their_ratios():
    # Two subnets at the upper end, of probability 1e-15 and 3e-15 in the whole space: sums near one cannot tell them.
    rare = 1e-5
    dimensions = [Dimension(f"w{i}", "channels", (0, 1), (1 - rare, rare)) for i in range(3)]
    dimensions.append(Dimension("w3", "channels", (0, 1, 2), (0.6, 0.1, 0.3)))
    space = SearchSpace(dimensions)
    terms = [CostTerm((f"w{i}",), np.array([0.0, 100.0])) for i in range(3)]
    terms.append(CostTerm(("w2", "w3"), np.array([[0.0, 100.0, 101.0]] * 2)))
    sampler = ChainSampler(AdditiveCost(space, terms), Constraint("flops", 0, 400, 4))
    draws, _ = sampler.draw_many(400, 4000, np.random.default_rng(0))
    assert set(draws[:, 3].tolist()) == {1, 2}
    share = (draws[:, 3] == 2).mean()
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5


def test_large_spaces_take_the_chain_and_unreachable_targets_are_named():
    cost = chain_cost((40,) * 6, 5)
    constraint = Constraint("flops", 1, 41, 5)
    sampler = build_conditional_sampler(cost, constraint)
    assert isinstance(sampler, ChainSampler)
    low, high = sampler.resource_range
    for target in sampler.reachable_targets:
        _, resources = sampler.draw_many(target, 500, np.random.default_rng(0))
        assert (np.abs(resources - target) <= 2.5).all()
        assert sampler.count(target) >= 50
    assert sampler.unreachable_targets
    for target in sampler.unreachable_targets:
        with pytest.raises(UnreachableTargetError, match=f"no subnet has flops = {target}: the search space covers"):
            sampler.draw_many(target, 1, np.random.default_rng(0))
        assert not low <= target <= high


def test_a_space_that_is_no_chain_is_an_error():
    space = SearchSpace([Dimension(f"w{i}", "channels", tuple(range(110))) for i in range(3)])
    cost = AdditiveCost(space, [CostTerm(("w0", "w2"), np.eye(110))])
    with pytest.raises(ConfigError, match=r"1331000 subnets, too many to enumerate, .* depends on \['w0', 'w2'\]"):
        ChainSampler(cost, Constraint("flops", 0, 2, 1))


def unary_cost(tables, resolutions=1, scale=1.0):
    """A chain without interaction: one table a group, uniform probabilities; at each resolution the same."""
    dimensions = [Dimension(f"w{i}", "channels", tuple(range(len(t)))) for i, t in enumerate(tables)]
    if resolutions > 1:
        dimensions.append(Dimension("resolution", "resolution", tuple(range(resolutions))))
    terms = [CostTerm((f"w{i}",), np.array(t, dtype=float)) for i, t in enumerate(tables)]
    return AdditiveCost(SearchSpace(dimensions), terms, scale)


def sums_and_multiplicities(tables):
    """The distinct sums of one entry of each table of whole numbers, and how often each occurs."""
    ways = {0: 1}
    for table in tables:
        after = {}
        for total, count in ways.items():
            for entry in table:
                after[total + entry] = after.get(total + entry, 0) + count
        ways = after
    return ways


class TestReachability:
    """Which targets are reachable, by how many subnets, and draws of the rare ones."""

    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("kind", ["whole", "quarters", "tenths", "reals"])
    def test_counts_are_those_of_enumeration(self, seed, kind):
        """Small spaces that the chain is forced on; steps so small that many targets have no subnet, or one."""
        generator = np.random.default_rng(seed)
        widths, resolutions = generator.integers(2, 6, size=5).tolist(), int(generator.integers(1, 4))
        real = chain_cost(widths, resolutions, seed)
        if kind == "reals":
            cost = real
        else:
            parts, unit = {"whole": (40, 1.0), "quarters": (40, 0.25), "tenths": (40, 0.1)}[kind]
            terms = [
                CostTerm(tuple(real.space.names[c] for c in columns), np.rint(table * parts) * unit)
                for columns, table in real.terms
            ]
            cost = AdditiveCost(real.space, terms, scale=[1e-6, 1 / 3][seed])
        low, high = EnumeratedSampler(cost, Constraint("flops", 0, 1e6, 1e6)).resource_range
        # Steps of an even number of units put whole sums right on the edges.
        step = (high - low) / 60 if kind == "reals" else 2 * unit * cost.scale
        first = low - 3 * step if kind == "reals" else np.floor(low / step - 3) * step
        constraint = Constraint("flops", first, first + 90 * step, step)
        sampler, enumerated = ChainSampler(cost, constraint), EnumeratedSampler(cost, constraint)
        counts = [enumerated.count(target) for target in constraint.targets]
        assert [sampler.count(target) for target in constraint.targets] == counts
        assert 0 in counts
        for target in sampler.reachable_targets[:: max(1, len(sampler.reachable_targets) // 20)]:
            draws, _ = sampler.draw_many(target, 200, generator)
            assert len(np.unique(draws, axis=0)) <= enumerated.count(target)
            assert (constraint.nearest_target_index(cost(draws)) == constraint.targets.index(target)).all()

    def test_a_listed_target_has_the_spaces_distribution(self):
        cost = chain_cost((4, 5, 3, 6), 3, seed=3)
        constraint = Constraint("flops", 2, 12, 0.5)
        sampler, generator = ChainSampler(cost, constraint), np.random.default_rng(0)
        assert sampler._listed.keys() == {constraint.targets.index(target) for target in sampler.reachable_targets}
        p_values = []
        for target in sampler.reachable_targets:
            draws, resources = sampler.draw_many(target, 5000, generator)
            np.testing.assert_allclose(resources, cost(draws), rtol=1e-12)
            p_values.append(chi_square(draws, cost.space, exact_distribution(cost, constraint, target)))
        assert min(p_values) > 1e-3 / len(p_values)

    @pytest.mark.parametrize("unit", [1.0, 0.1])
    def test_one_subnet_of_a_thousand_million(self, unit):
        """Nine groups cost 0 to 81 units together; a tenth has one value that leaps over a gap."""
        tables = [[unit * value for value in range(10)]] * 9 + [[0, 200 * unit]]
        # 82 to 199 units are a gap, 200 units belong to one subnet, 201 to nine, …
        cost = unary_cost(tables)
        sampler = ChainSampler(cost, Constraint("flops", 0, 300 * unit, unit))
        ways = sums_and_multiplicities([range(10)] * 9 + [[0, 200]])
        assert sampler.reachable_targets == pytest.approx([total * unit for total in sorted(ways)])
        rare = [total for total, count in ways.items() if count < 10_000]
        assert len(rare) > 20
        for total in rare:
            target = sampler.constraint.targets[total]
            assert sampler.count(target) == ways[total]
            draws, _ = sampler.draw_many(target, 50, np.random.default_rng(0))
            assert (draws[:, :9].sum(axis=1) + 200 * draws[:, 9] == total).all()
        for total in set(ways) - set(rare):
            assert 10_000 <= sampler.count(sampler.constraint.targets[total]) <= ways[total]

    @pytest.mark.parametrize("edge", ["upper", "lower"])
    def test_a_needle_beside_a_crowd(self, edge):
        """One subnet in the target, 67 million just outside of it: draws near the target would never hit."""
        # The crowd adds up to 0 to 2.6e-5; only its one end is within 0.5e-6 of the edge.
        beside = 10.5 - 0.5e-6 if edge == "upper" else 10.5 + 0.5e-6 - 26e-6
        cost = unary_cost([*[[0.0, 1e-6]] * 26, [0.0, beside], [20.0, 0.0]])
        sampler = ChainSampler(cost, Constraint("flops", 0, 40, 1))
        needle, crowd = (10, 11) if edge == "upper" else (11, 10)
        assert sampler.count(needle) == 1 and sampler.count(crowd) >= 200
        draws, _ = sampler.draw_many(needle, 3, np.random.default_rng(0))
        assert (draws[:, :26] == (edge == "lower")).all() and (draws[:, 26:] == 1).all()
        # and with 20 more
        others = (30, 31) if edge == "upper" else (31, 30)
        assert sampler.count(others[0]) == 1
        assert sampler.reachable_targets == tuple(sorted((0, 10, 11, 20, *others)))

    @pytest.mark.parametrize("step", [2, 4])
    def test_sums_on_the_edges_in_large_numbers(self, step):
        """Every sum is on an edge of two targets and goes to the even one, as numpy rounds: up to 2.7 million."""
        tables = [[0, 1]] * 24
        ways = sums_and_multiplicities(tables)
        cost = unary_cost([[0, step]] * 24)
        constraint = Constraint("flops", step // 2, step * 25 + step // 2, step)
        expected = dict.fromkeys(range(len(constraint.targets)), 0)
        for total, count in ways.items():
            index = int(constraint.nearest_target_index(np.array([float(total * step)]))[0])
            if index >= 0:
                expected[index] += count
        assert 0 in expected.values()
        sampler = ChainSampler(cost, constraint)
        for index, target in enumerate(constraint.targets):
            assert (target in sampler.reachable_targets) == (expected[index] > 0)
            if expected[index] and expected[index] <= 10_000:
                assert sampler.count(target) == expected[index]
            elif expected[index]:
                assert 50 <= sampler.count(target) <= expected[index]
                draws, _ = sampler.draw_many(target, 100, np.random.default_rng(1))
                assert (constraint.nearest_target_index(cost(draws)) == index).all()

    def test_a_gap_between_smallest_and_largest(self):
        """A space of 1e12 subnets that no subnet of the middle belongs to, at all resolutions but one."""
        generator = np.random.default_rng(0)
        tables = [np.sort(generator.random(10)) for _ in range(12)]
        tables[6] = tables[6] + np.repeat([0.0, 40.0], 5)
        cost = unary_cost(tables)
        low = [sum(t.min() for t in tables), sum(t[:5].max() if i == 6 else t.max() for i, t in enumerate(tables))]
        high = [sum(t[5:].min() if i == 6 else t.min() for i, t in enumerate(tables)), sum(t.max() for t in tables)]
        constraint = Constraint("latency", 0, 60, 0.25)
        sampler = ChainSampler(cost, constraint)
        half = 0.125
        for target in constraint.targets:
            inside = any(a <= target + half and target - half <= b for a, b in (low, high))
            if any(min(abs(target - half - end), abs(target + half - end)) < 0.25 for end in (*low, *high)):
                continue  # the ends are dense only further inside
            assert (target in sampler.reachable_targets) == inside, target

    def test_what_cannot_be_told_is_an_error(self, monkeypatch):
        """2^30 subnets of distinct costs 1e-11 beyond an edge; the bound is on the work."""
        monkeypatch.setattr(binned_sampler, "_MAX_ROUNDS", 2)
        cost = unary_cost([[value, value + 1e-13 / value] for value in range(1, 31)])
        beyond = sum(range(1, 31)) - 0.5 - 1e-11
        with pytest.raises(ConfigError, match=r"more than 100000 subnets have about the edges of .*first or step"):
            ChainSampler(cost, Constraint("flops", beyond, beyond, 1))

    def test_pools_of_rare_targets_can_be_full(self):
        tables = [range(10)] * 9 + [[0, 1000]]
        cost = unary_cost(tables)
        sampler = PrioritizedSubnetSampler({"flops": cost}, [Constraint("flops", 999, 1002, 1)], pool_size=50)
        capacities = {target: pool.capacity for (_, target), pool in sampler.pools.items()}
        assert capacities == {1000: 1, 1001: 9, 1002: 45}
        for step in range(2000):
            draw = sampler.draw(p_explore=0.5)
            sampler.update(draw, -float(step % 7))
        assert all(pool.is_full for pool in sampler.pools.values())


def test_a_target_that_accepts_few_draws(monkeypatch):
    """Most draws near the target are beside it: more are made, and as many as wanted come back."""
    monkeypatch.setattr(binned_sampler, "FEW", 100)
    beside = np.linspace(0.50001, 0.503, 100)
    cost = unary_cost([*[[0.0, 0.001]] * 8, [0.4, *beside]])
    sampler = ChainSampler(cost, Constraint("flops", 0, 2, 1))
    assert 0 not in sampler._listed and sampler.count(0) == 256
    draws, _ = sampler.draw_many(0, 300, np.random.default_rng(0))
    assert len(draws) == 300 and not draws[:, 8].any()
    assert len(np.unique(draws, axis=0)) > 150
    assert (np.abs(draws[:, :8].mean(axis=0) - 0.5) < 4 * 0.5 / 300**0.5).all()
