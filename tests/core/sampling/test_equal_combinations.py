"""Several combinations of choices that are one subnet: it is drawn with all their probability, and counted once."""

import numpy as np
import pytest

from pss_razor.core import (
    AdditiveCost,
    Constraint,
    CostTerm,
    Dimension,
    EnumeratedSampler,
    PrioritizedSubnetSampler,
    SearchSpace,
    TreeSampler,
)
from pss_razor.core.sampling import binned_sampler, conditional_sampler


@pytest.fixture(scope="module")
def cost():
    """A stem, and three blocks of which one or two are skipped; uneven probabilities."""
    generator = np.random.default_rng(0)
    widths = (8, 16, 24)
    probabilities = [tuple(generator.dirichlet(np.full(3, 3.0))) for _ in range(5)]
    dimensions = [Dimension("stem", "channels", widths, probabilities[0])]
    dimensions += [
        Dimension(f"inner{n}", "channels", widths, probabilities[n], used_from=None if n == 1 else ("depth", n))
        for n in (1, 2, 3)
    ]
    dimensions.append(Dimension("depth", "value", (1, 2, 3), probabilities[4]))
    terms = [CostTerm(("stem",), np.array(widths) * 3.0)]
    for n in (1, 2, 3):
        runs = (np.array([1, 2, 3]) >= n).astype(float)
        terms.append(CostTerm(("stem", f"inner{n}", "depth"), np.einsum("a,b,d->abd", widths, widths, runs) * 0.1))
    return AdditiveCost(SearchSpace(dimensions), terms)


@pytest.fixture(scope="module")
def constraint(cost):
    resources = cost(cost.space.enumerate())
    return Constraint.spread("flops", 5, resources.min(), resources.max())


@pytest.fixture(scope="module")
def networks(cost, constraint):
    """Target -> canonical row -> probability under the target, by going through all combinations."""
    space, found = cost.space, {target: {} for target in constraint.targets}
    rows = space.enumerate()
    for row, resource, probability in zip(rows, cost(rows), space.probabilities(rows), strict=True):
        target = min(constraint.targets, key=lambda target: abs(target - resource))
        subnet = space.decode(row)
        key = tuple(space.encode([subnet])[0])
        found[target][key] = found[target].get(key, 0.0) + probability
    return {t: {key: p / sum(own.values()) for key, p in own.items()} for t, own in found.items()}


@pytest.mark.parametrize("kind", [EnumeratedSampler, TreeSampler])
def test_draws_follow_the_networks(kind, cost, constraint, networks):
    sampler = kind(cost, constraint)
    for target, expected in networks.items():
        rows, resources = sampler.draw_many(target, 20_000, np.random.default_rng(1))
        assert np.allclose(resources, cost(rows))
        counts = dict.fromkeys(expected, 0)
        for row in map(tuple, rows.tolist()):
            counts[row] += 1  # nothing but canonical rows of this target
        chi_square = sum((counts[k] - 20_000 * p) ** 2 / (20_000 * p) for k, p in expected.items())
        freedom = max(len(expected) - 1, 1)
        assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_a_network_is_counted_once(cost, constraint, networks):
    assert {t: EnumeratedSampler(cost, constraint).count(t) for t in networks} == {
        target: len(own) for target, own in networks.items()
    }


def test_the_tree_sampler_counts_what_it_lists(cost, constraint, networks):
    sampler = TreeSampler(cost, constraint)
    assert {t: sampler.count(t) for t in networks} == {target: len(own) for target, own in networks.items()}


@pytest.mark.parametrize("trials", [2, 1024])
def test_what_it_does_not_list_is_a_lower_bound(trials, cost, constraint, networks, monkeypatch):
    monkeypatch.setattr(binned_sampler, "FEW", 1)
    monkeypatch.setattr(conditional_sampler, "_TRIALS", trials)
    sampler = TreeSampler(cost, constraint)
    for target, own in networks.items():
        assert min(trials, 0.8 * len(own)) / 2 <= sampler.count(target) <= min(trials, len(own))


def test_pools_can_be_full(cost, constraint, networks):
    """A pool's size is the number of networks where they are fewer, and its entries are distinct networks."""
    sampler = PrioritizedSubnetSampler({"flops": cost}, [constraint], pool_size=1_000)
    for step in range(4_000):
        draw = sampler.draw(p_explore=1.0)
        sampler.update(draw, float(step))
    for (_, target), pool in sampler.pools.items():
        assert pool.capacity == len(networks[target])
    smallest = sampler.pools["flops", constraint.targets[0]]
    assert smallest.is_full
