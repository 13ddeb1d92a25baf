import itertools
import json
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from mbv2_by_hand import mbv2_cost, mbv2_macs, mbv2_space
from scipy.stats import binomtest, chisquare

from pss_razor.core import (
    AdditiveCost,
    CheckpointError,
    ConfigError,
    Constraint,
    CostTerm,
    Dimension,
    EnumeratedSampler,
    PrioritizedSubnetSampler,
    SearchSpace,
    UnreachableTargetError,
)

# A small space with an uneven distribution: flops = a * b + r, params = a + b.
A, B, R = (1, 2, 3), (1, 2, 3, 4), (4, 6, 8)
P_A, P_B, P_R = (0.2, 0.3, 0.5), (0.1, 0.2, 0.3, 0.4), (0.6, 0.3, 0.1)
SPACE = SearchSpace(
    [Dimension("a", "channels", A, P_A), Dimension("b", "channels", B, P_B), Dimension("r", "resolution", R, P_R)]
)
FLOPS = AdditiveCost(
    SPACE, [CostTerm(("a", "b"), np.outer(A, B).astype(float)), CostTerm(("r",), np.array(R, dtype=float))]
)
PARAMS = AdditiveCost(SPACE, [CostTerm(("a",), np.array(A, dtype=float)), CostTerm(("b",), np.array(B, dtype=float))])
COSTS = {"flops": FLOPS, "params": PARAMS}
FLOPS_TARGETS = Constraint("flops", 2, 20, 2)  # 2 cannot be reached: the smallest is 5
PARAMS_TARGETS = Constraint("params", 3, 7, 2)


def conditional_by_hand(choices, probabilities, resource_of, first, step):
    """Target -> {values: probability given the target}, and target -> its probability, by a loop over the product."""
    offset = first % step
    joint: dict[float, dict[tuple, float]] = {}
    for values, ps in zip(itertools.product(*choices), itertools.product(*probabilities), strict=True):
        target = round((resource_of(*values) - offset) / step) * step + offset
        joint.setdefault(target, {})[values] = math.prod(ps)
    return {t: {v: p / sum(members.values()) for v, p in members.items()} for t, members in joint.items()}, {
        target: sum(members.values()) for target, members in joint.items()
    }


def assert_frequencies(observed, expected, draws):
    """Chi-square test; what is expected less than five times is one bin."""
    assert set(observed) <= set(expected)
    counts, means, rest_count, rest_mean = [], [], 0, 0.0
    for values, probability in expected.items():
        if draws * probability >= 5:
            counts.append(observed[values])
            means.append(draws * probability)
        else:
            rest_count += observed[values]
            rest_mean += draws * probability
    if rest_mean:
        counts.append(rest_count)
        means.append(rest_mean)
    if len(counts) == 1:
        assert counts == [draws]
    else:
        assert chisquare(counts, means).pvalue > 1e-4


def flops_by_hand(a, b, r):
    return a * b + r


def params_by_hand(a, b, r):
    return a + b


# EnumeratedSampler


@pytest.mark.parametrize("target", [4, 6, 8, 10, 12, 14, 16, 18, 20])
def test_small_space_conditional_distribution(target):
    expected, _ = conditional_by_hand((A, B, R), (P_A, P_B, P_R), flops_by_hand, 2, 2)
    sampler = EnumeratedSampler(FLOPS, FLOPS_TARGETS)
    assert sampler.count(target) == len(expected[target])
    indices, resources = sampler.draw_many(target, 20_000, np.random.default_rng(target))
    assert indices.dtype == np.int64
    values = [(A[i], B[j], R[k]) for i, j, k in indices.tolist()]
    assert resources.tolist() == [flops_by_hand(*v) for v in values]
    assert_frequencies(Counter(values), expected[target], 20_000)


@pytest.fixture(scope="module")
def mbv2():
    """Sampler over MobileNetV2's 41,184 subnets, and its conditional distributions by hand."""
    space = mbv2_space()
    widths = [(24, 32), (16,), (24,), (24, 32), (48, 56, 64), (72, 80, 88, 96), tuple(range(120, 161, 8))]
    resolutions = tuple(range(128, 225, 8))
    ends = (Fraction(1, 10), Fraction(1, 5), Fraction(1, 20), Fraction(1, 10))
    probabilities = [  # lengths of the intervals of base * multiplier by hand, see test_width.py
        (1 / 3, 2 / 3),
        (1.0,),
        (1.0,),
        (1 / 3, 2 / 3),
        (0.25, 0.5, 0.25),
        tuple(float(x) for x in (Fraction(1, 6), Fraction(1, 3), Fraction(1, 3), Fraction(1, 6))),
        tuple(float(x) for x in (ends[0], ends[1], ends[1], ends[1], ends[1], ends[0])),
        tuple(float(x) for x in (ends[2], *[ends[3]] * 9, ends[2])),
        (1 / 13,) * 13,
    ]
    expected, mass = conditional_by_hand(
        (*widths, tuple(range(240, 321, 8)), resolutions),
        probabilities,
        lambda *values: mbv2_macs(values[:-1], values[-1]) / 1e6,
        70,
        10,
    )
    return EnumeratedSampler(mbv2_cost(space), Constraint("flops", 70, 300, 10)), expected, mass


def test_mbv2_members_of_every_target(mbv2):
    sampler, expected, _ = mbv2
    assert sampler.reachable_targets == tuple(range(70, 301, 10))
    assert sampler.unreachable_targets == ()
    assert {target: sampler.count(target) for target in range(70, 301, 10)} == {
        target: len(members) for target, members in expected.items()
    }
    assert sum(len(members) for members in expected.values()) == 41_184


@pytest.mark.parametrize("which", ["rarest", "first", "commonest"])
def test_mbv2_conditional_distribution(mbv2, which):
    sampler, expected, mass = mbv2
    target = {"rarest": min(mass, key=mass.get), "first": 70, "commonest": max(mass, key=mass.get)}[which]
    draws = 100_000
    indices, resources = sampler.draw_many(target, draws, np.random.default_rng(5))
    rows, counts = np.unique(indices, axis=0, return_counts=True)
    observed = Counter()
    for row, count in zip(rows, counts.tolist(), strict=True):
        observed[tuple(sampler.space.decode(row).values())] = count
    assert_frequencies(observed, expected[target], draws)
    assert np.all(np.abs(resources - target) <= 5)
    shown = [sampler.space.decode(row) for row in indices[:50]]
    by_hand = [mbv2_macs(tuple(s.values())[:-1], s["resolution"]) / 1e6 for s in shown]
    assert resources[:50] == pytest.approx(by_hand, rel=1e-12)


def test_every_draw_lands_in_its_target(mbv2):
    sampler, _, _ = mbv2
    rng = np.random.default_rng(0)
    for target in sampler.reachable_targets:
        _, resources = sampler.draw_many(target, 500, rng)
        assert {round(resource / 10) * 10 for resource in resources.tolist()} == {target}


def test_draws_are_repeatable_and_differ_by_seed():
    sampler = EnumeratedSampler(FLOPS, FLOPS_TARGETS)
    first, again, other = (sampler.draw_many(10, 200, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_no_draws():
    indices, resources = EnumeratedSampler(FLOPS, FLOPS_TARGETS).draw_many(10, 0, np.random.default_rng(0))
    assert indices.shape == (0, 3)
    assert resources.shape == (0,)


class LargestRandom:
    """The upper end of [0, 1), at which a look-up in sums of probabilities could run past the last member."""

    def random(self, count):
        return np.full(count, np.nextafter(1.0, 0.0))


def test_the_largest_random_number_stays_among_the_members(mbv2):
    sampler, _, _ = mbv2
    for target in sampler.reachable_targets:
        _, resources = sampler.draw_many(target, 1, LargestRandom())
        assert round(float(resources[0]) / 10) * 10 == target


@pytest.fixture
def gappy():
    """Costs 10, 20 and 50."""
    space = SearchSpace([Dimension("a", "value", (1, 2, 5))])
    return EnumeratedSampler(
        AdditiveCost(space, [CostTerm(("a",), np.array([10.0, 20.0, 50.0]))]), Constraint("flops", 0, 70, 10)
    )


def test_unreachable_targets_are_reported_and_left_out(gappy):
    assert gappy.reachable_targets == (10, 20, 50)
    assert gappy.unreachable_targets == (0, 30, 40, 60, 70)
    assert gappy.resource_range == (10.0, 50.0)
    assert [gappy.count(target) for target in gappy.constraint.targets] == [0, 1, 1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(("target", "nearest"), [(0, 10), (30, 20), (40, 50), (70, 50)])
def test_drawing_an_unreachable_target_names_the_nearest(gappy, target, nearest):
    message = rf"no subnet has flops = {target}: the search space covers 10 to 50; the nearest .* is {nearest}$"
    with pytest.raises(UnreachableTargetError, match=message):
        gappy.draw_many(target, 1, np.random.default_rng(0))


@pytest.mark.parametrize("target", [7, 80, -10, 10.5])
def test_an_unknown_target_is_an_error(gappy, target):
    message = rf"{target} is not a target of flops; the targets are \[0, 10, 20, 30, 40, 50, 60, 70\]"
    with pytest.raises(UnreachableTargetError, match=message):
        gappy.draw_many(target, 1, np.random.default_rng(0))
    with pytest.raises(UnreachableTargetError, match=message):
        gappy.count(target)


def test_no_reachable_target_at_all_is_an_error():
    with pytest.raises(UnreachableTargetError, match=r"no target of flops from 100 to 200 .* covers 5 to 20; choose"):
        EnumeratedSampler(FLOPS, Constraint("flops", 100, 200, 10))


@pytest.mark.parametrize("shape", [(3,) * 20, (101, 9901)])  # 3.5e9, and one more than a million
def test_a_space_too_large_to_enumerate_is_an_error(shape):
    space = SearchSpace([Dimension(f"d{i}", "value", tuple(range(n))) for i, n in enumerate(shape)])
    with pytest.raises(ConfigError, match=f"the search space has {math.prod(shape)} subnets, more than 1000000"):
        EnumeratedSampler(AdditiveCost(space, []), Constraint("flops", 0, 10, 10))


# PrioritizedSubnetSampler


def make_sampler(seed=0, pool_size=2, constraints=(FLOPS_TARGETS, PARAMS_TARGETS), **kwargs):
    return PrioritizedSubnetSampler(COSTS, constraints, pool_size=pool_size, seed=seed, **kwargs)


def train(sampler, draws, p_explore, temperature=1.0, seed=0):
    """Draw and score with noise; the draws."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(draws):
        draw = sampler.draw(p_explore, temperature)
        sampler.update(draw, float(-rng.exponential()))
        result.append(draw)
    return result


def test_constraints_in_proportion_to_their_targets_and_targets_uniformly():
    sampler = make_sampler()
    draws = 8000
    counts = Counter((d.metric, d.target) for d in (sampler.draw(1.0, 1.0) for _ in range(draws)))
    flops = sum(count for (metric, _), count in counts.items() if metric == "flops")
    assert binomtest(flops, draws, 9 / 12).pvalue > 1e-4  # 9 of the 10 flops targets can be reached, and 3 params
    assert set(counts) == {*(("flops", t) for t in range(4, 21, 2)), *(("params", t) for t in (3, 5, 7))}
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_capacities_are_limited_by_the_distinct_subnets():
    flops, _ = conditional_by_hand((A, B, R), (P_A, P_B, P_R), flops_by_hand, 2, 2)
    params, _ = conditional_by_hand((A, B, R), (P_A, P_B, P_R), params_by_hand, 3, 2)
    members = {("flops", t): len(m) for t, m in flops.items()} | {("params", t): len(params[t]) for t in (3, 5, 7)}
    for pool_size in (1, 5, 50):
        capacities = {key: pool.capacity for key, pool in make_sampler(pool_size=pool_size).pools.items()}
        assert capacities == {key: min(pool_size, count) for key, count in members.items()}
    assert min(members.values()) < 5 < max(members.values())


def test_draws_are_subnets_of_their_target_with_their_resource():
    for draw in train(make_sampler(pool_size=3), 3000, p_explore=0.3):
        subnet = draw.subnet
        a, b, r = subnet["a"], subnet["b"], subnet["r"]
        if draw.metric == "flops":
            assert draw.resource == flops_by_hand(a, b, r)
            assert round(draw.resource / 2) * 2 == draw.target
        else:
            assert draw.resource == params_by_hand(a, b, r)
            assert round((draw.resource - 1) / 2) * 2 + 1 == draw.target


def test_explores_until_the_pool_is_full_then_draws_from_it():
    sampler = make_sampler(pool_size=4)
    for _ in range(2000):
        draw = sampler.draw(0.0, 1.0)
        pool = sampler.pools[draw.metric, draw.target]
        assert draw.explored == (not pool.is_full)
        if not draw.explored:
            assert draw.subnet in pool
        sampler.update(draw, -1.0)
    assert all(pool.is_full for pool in sampler.pools.values())


def test_exploring_follows_the_conditional_distribution():
    expected, _ = conditional_by_hand((A, B, R), (P_A, P_B, P_R), params_by_hand, 3, 2)
    sampler = make_sampler(constraints=[Constraint("params", 5, 5, 2)])
    draws = 5000
    observed = Counter(tuple(sampler.draw(1.0, 1.0).subnet.values()) for _ in range(draws))
    assert_frequencies(observed, expected[5], draws)


@pytest.mark.parametrize("p_explore", [0.05, 0.5, 0.9])
def test_share_of_exploration_with_full_pools(p_explore):
    sampler = make_sampler()
    train(sampler, 500, p_explore=1.0)
    assert all(pool.is_full for pool in sampler.pools.values())
    draws = 4000
    explored = sum(draw.explored for draw in train(sampler, draws, p_explore))
    assert binomtest(explored, draws, p_explore).pvalue > 1e-4


@pytest.mark.parametrize("p_explore", [0.0, 1.0])
def test_ends_of_exploration(p_explore):
    sampler = make_sampler()
    train(sampler, 500, p_explore=1.0)
    assert {draw.explored for draw in train(sampler, 1000, p_explore)} == {p_explore == 1.0}


def test_temperature_reaches_the_pools():
    sampler = make_sampler(pool_size=3)
    train(sampler, 1000, p_explore=1.0)
    cold = Counter(sampler.draw(0.0, 1e-6).subnet for _ in range(500))
    assert set(cold) == {pool.best(1)[0].subnet for pool in sampler.pools.values()}
    hot = {sampler.draw(0.0, 1e6).subnet for _ in range(1000)}
    assert hot == {entry.subnet for pool in sampler.pools.values() for entry in pool}


def test_update_reaches_the_pool_of_the_draw_alone():
    sampler = make_sampler(pool_size=5, score_momentum=0.5)
    draw = sampler.draw(1.0, 1.0)
    sampler.update(draw, -2.0)
    sampler.update(draw, -1.0)
    (key,) = [key for key, pool in sampler.pools.items() if len(pool)]
    assert key == (draw.metric, draw.target)
    (entry,) = sampler.pools[key]
    assert (entry.subnet, entry.score, entry.resource, entry.visits) == (draw.subnet, -1.5, draw.resource, 2)


def test_the_same_seed_gives_the_same_draws():
    first, again, other = (train(make_sampler(seed=seed), 300, 0.5) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_state_continues_with_identical_draws():
    sampler = make_sampler(seed=1, pool_size=3)
    train(sampler, 200, p_explore=0.5)
    state = json.loads(json.dumps(sampler.state_dict()))
    other = make_sampler(seed=99, pool_size=3)
    train(other, 50, p_explore=1.0)
    other.load_state_dict(state)
    continued = train(sampler, 400, p_explore=0.3, seed=2)
    assert train(other, 400, p_explore=0.3, seed=2) == continued
    assert 0 < sum(draw.explored for draw in continued) < 400
    assert json.dumps(other.state_dict()) == json.dumps(sampler.state_dict())


def test_entries_know_the_draws_they_were_visited_at():
    sampler = make_sampler(seed=4, pool_size=3)
    visits = {}
    for step, draw in enumerate(train(sampler, 300, p_explore=0.5), start=1):
        visits.setdefault((draw.metric, draw.target, draw.subnet), []).append(step)
    assert sampler.step == 300
    for (metric, target), pool in sampler.pools.items():
        for entry in pool:
            own = visits[metric, target, entry.subnet]
            # its last visits: it may have been dropped and found again
            assert (entry.first_step, entry.last_step) == (own[-entry.visits], own[-1])
        kept = pool.turnover.insertions - pool.turnover.drops
        assert kept == len(pool) <= pool.turnover.insertions
    restored = make_sampler(pool_size=3)
    restored.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert restored.step == 300
    assert [p.turnover for p in restored.pools.values()] == [p.turnover for p in sampler.pools.values()]
    assert sum(pool.turnover.drops for pool in sampler.pools.values()) > 0
    assert sum(pool.turnover.visits for pool in sampler.pools.values()) == 300


def test_a_state_of_version_0_2_loads():
    sampler = make_sampler(seed=4, pool_size=3)
    train(sampler, 100, p_explore=0.5)
    state = json.loads(json.dumps(sampler.state_dict()))
    del state["step"], state["turnover"]
    for pools in state["pools"].values():
        for record in (record for pool in pools.values() for record in pool):
            del record["first_step"], record["last_step"]
    other = make_sampler(pool_size=3)
    other.load_state_dict(state)
    assert train(other, 50, p_explore=0.5, seed=2) == train(sampler, 50, p_explore=0.5, seed=2)
    assert other.step == 50 and sampler.step == 150


@pytest.mark.parametrize("step", [-1, 1.0, "x", None, True])
def test_a_damaged_number_of_draws_is_an_error(step):
    state = {**make_sampler().state_dict(), "step": step}
    with pytest.raises(CheckpointError, match="the number of draws in the checkpoint"):
        make_sampler().load_state_dict(state)


def test_state_of_other_constraints_is_an_error():
    state = make_sampler().state_dict()
    with pytest.raises(CheckpointError, match="flops = 10 is in the checkpoint, not in the config"):
        make_sampler(constraints=[PARAMS_TARGETS]).load_state_dict(state)


def test_two_constraints_on_one_metric_are_an_error():
    with pytest.raises(ConfigError, match="flops"):
        make_sampler(constraints=[Constraint("flops", 6, 8, 2), Constraint("flops", 12, 14, 2)])


def test_a_constraint_on_an_unknown_metric_is_an_error():
    with pytest.raises(ConfigError, match="latency"):
        make_sampler(constraints=[Constraint("latency", 6, 8, 2)])


def test_no_constraint_is_an_error():
    with pytest.raises(ConfigError):
        make_sampler(constraints=[])


@pytest.mark.parametrize("key", ["pools", "generator"])
def test_an_incomplete_state_is_an_error(key):
    state = make_sampler().state_dict()
    del state[key]
    with pytest.raises(CheckpointError, match=key):
        make_sampler().load_state_dict(state)
