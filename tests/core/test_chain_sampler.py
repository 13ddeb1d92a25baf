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
    SearchSpace,
    UnreachableTargetError,
    build_conditional_sampler,
)


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


def test_a_large_space_that_is_no_chain_is_an_error():
    space = SearchSpace([Dimension(f"w{i}", "channels", tuple(range(110))) for i in range(3)])
    cost = AdditiveCost(space, [CostTerm(("w0", "w2"), np.ones((110, 110)))])
    with pytest.raises(ConfigError, match=r"1331000 subnets, too many to enumerate, .* depends on \['w0', 'w2'\]"):
        build_conditional_sampler(cost, Constraint("flops", 0, 2, 1))
