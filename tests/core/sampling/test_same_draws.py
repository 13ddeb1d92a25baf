"""Draws are, for a seed, what they were in 0.2: a resumed training goes on with the subnets that it would have met."""

import hashlib
from itertools import product

import numpy as np
import pytest
from test_chain_sampler import chain_cost
from test_tree_sampler import dense_cost, targets_between

from pss_razor.core import AdditiveCost, ChainSampler, Constraint, CostTerm, Dimension, SearchSpace, TreeSampler
from pss_razor.core.sampling import binned_sampler


def long_chain():
    """Too many subnets to list those of a target, at several resolutions; the ends accept few draws."""
    return chain_cost((6, 9, 12, 17, 17, 9), 4, seed=2), Constraint("flops", 2, 12, 0.5)


def residual_network():
    """Stage widths in a chain, each with inner widths of its blocks, and a resolution."""
    generator = np.random.default_rng(3)
    sizes = dict(a=9, b=9, c=9, d=9, e=9, f=9, g=9)
    dimensions = [Dimension(name, "channels", tuple(range(n))) for name, n in sizes.items()]
    space = SearchSpace([*dimensions, Dimension("resolution", "resolution", (0, 1, 2))])
    growth = np.array([1.0, 1.5, 2.0])
    terms = [
        CostTerm((*pair, "resolution"), np.sort(generator.random((9, 9)), axis=1)[:, :, None] * growth)
        for pair in ("ab", "ac", "ad", "de", "df", "dg", "bg")
    ]
    return AdditiveCost(space, terms), Constraint("flops", 2, 13, 0.5)


def dense_block():
    """Sums of widths are variables, too."""
    cost, _ = dense_cost(layers=5, resolutions=2)
    return cost, targets_between(cost, 9)


# Recorded with 0.2 at 89f1973.
RECORDED = {
    (ChainSampler, long_chain): "bf79b0b8d63a674e",
    (TreeSampler, long_chain): "2c570f04b187c659",
    (TreeSampler, residual_network): "bd82544c6d4d2b8d",
    (TreeSampler, dense_block): "3d572aeb0fb741b3",
}


def digest_of_draws(sampler):
    """Of draws of all targets, many and one at a time, and of the generator afterwards."""
    digest, generator = hashlib.sha256(), np.random.default_rng(7)
    for target in sampler.reachable_targets:
        for count in (700, 1, 2, 40, 1):
            indices, _ = sampler.draw_many(target, count, generator)
            digest.update(np.ascontiguousarray(indices).tobytes())
    digest.update(repr(generator.bit_generator.state).encode())
    return digest.hexdigest()[:16]


@pytest.fixture
def build(monkeypatch):
    """Makes a sampler that lists few targets, and has sums of widths as variables if it can."""
    monkeypatch.setattr(binned_sampler, "FEW", 500)
    layouts = TreeSampler._layouts
    monkeypatch.setattr(TreeSampler, "_layouts", lambda sampler: [*layouts(sampler)][-1:])
    return lambda kind, make: kind(*make())


@pytest.mark.parametrize("kind, make", RECORDED, ids=lambda value: value.__name__)
def test_draws_are_those_of_before(kind, make, build):
    sampler = build(kind, make)
    assert len(sampler.reachable_targets) > len(sampler._listed) + 5
    assert digest_of_draws(sampler) == RECORDED[kind, make]


@pytest.mark.parametrize("kind, make", RECORDED, ids=lambda value: value.__name__)
def test_a_draw_depends_on_its_own_numbers_alone(kind, make, build):
    """However many are made together: sums of many columns are added up in another way than those of one."""
    sampler = build(kind, make)
    generator = np.random.default_rng(0)
    for distribution in sampler._distributions:
        middle = sum(distribution.bounds) / 2
        index = int(np.argmin(np.abs(np.array(sampler.constraint.targets) - middle)))
        window = distribution.windows(*sampler._edges(index))[0]
        numbers = generator.random((distribution.numbers_a_draw, 2 * binned_sampler._MANY_COLUMNS))
        together = distribution.draw(window, numbers)
        alone = [distribution.draw(window, numbers[:, [column]])[0] for column in range(numbers.shape[1])]
        assert len(np.unique(together, axis=0)) > 20
        np.testing.assert_array_equal(together, alone)


def test_draws_along_a_chain_are_those_by_hand():
    """Each value is the first whose share of what can still end in the window, and those before, exceed the number."""
    cost = chain_cost((3, 4, 2, 5), 1, seed=4)
    sampler = ChainSampler(cost, Constraint("flops", 1, 7, 1))
    (chain,) = sampler._chains
    window = chain.windows(2.5, 3.5)[0]
    probabilities = [np.array(dimension.probabilities) for dimension in cost.space.dimensions]

    def weight(values):
        """Probability of the last of some values, and that the others end in the window."""
        total = 0.0
        for rest in product(*(range(len(p)) for p in probabilities[len(values) :])):
            row = (*values, *rest)
            bins = sum(step[before, own] for step, before, own in zip(chain.steps, (0, *row), row, strict=False))
            likely = [p[own] for p, own in zip(probabilities, row, strict=True)]
            total += (window[0] <= bins <= window[1]) * np.prod(likely[len(values) - 1 :])
        return total

    numbers = np.random.default_rng(0).random((chain.numbers_a_draw, 200))
    for drawn, own in zip(chain.draw(window, numbers).tolist(), numbers.T, strict=True):
        values = ()
        for p, number in zip(probabilities, own, strict=True):
            shares = np.cumsum([weight((*values, value)) for value in range(len(p))])
            values = (*values, int((shares <= number * shares[-1]).sum()))
        assert tuple(drawn) == values


@pytest.mark.parametrize("count", [1, 30])
def test_how_many_draws_are_looked_at_does_not_matter_to_later_ones(count, monkeypatch):
    """The generator goes on as if all proposals of a round had been looked at."""
    sampler = ChainSampler(*long_chain())
    target = sampler.constraint.targets[10]
    states = []
    for fewest in (1, 1000):
        generator = np.random.default_rng(1)
        monkeypatch.setattr(binned_sampler, "_FEW_DRAWS", fewest)
        found = sampler.draw_many(target, count, generator)[0].tolist()
        states.append((found, generator.bit_generator.state))
    assert states[0] == states[1]
