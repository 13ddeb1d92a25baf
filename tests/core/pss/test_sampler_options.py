"""Options of the sampler that depart from the paper."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare
from test_prioritized_subnet_sampler import (
    FLOPS,
    FLOPS_TARGETS,
    P_A,
    P_B,
    P_R,
    SPACE,
    A,
    B,
    R,
    conditional_by_hand,
    flops_by_hand,
    make_sampler,
    train,
)

from pss_razor.core import PrioritizedPool, Subnet, TrainingDivergedError, shared_multiplier_subnets

TARGETS = tuple(range(4, 21, 2))


def one_constraint(**kwargs):
    return make_sampler(constraints=[FLOPS_TARGETS], **kwargs)


def shares_by_hand():
    _, shares = conditional_by_hand((A, B, R), (P_A, P_B, P_R), flops_by_hand, 2, 2)
    return {("flops", target): shares[target] for target in TARGETS}


def test_shares_of_the_targets():
    found, expected = one_constraint().target_shares, shares_by_hand()
    assert found.keys() == expected.keys()
    for key, share in expected.items():
        assert found[key] == pytest.approx(share, abs=5 * math.sqrt(share / 2**16))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_targets_are_drawn_by_a_power_of_their_share(power):
    sampler = one_constraint(target_power=(power, 0.0))
    draws = 6000
    counts = Counter(sampler.draw(1.0).target for _ in range(draws))
    weights = {target: share**power for (_, target), share in sampler.target_shares.items()}
    expected = [draws * weight / sum(weights.values()) for weight in weights.values()]
    assert chisquare([counts[target] for target in weights], expected).pvalue > 1e-4


def test_cheaper_targets_are_drawn_oftener():
    sampler = one_constraint(cost_power=-1.0)
    draws = 6000
    counts = Counter(sampler.draw(1.0).target for _ in range(draws))
    weights = [1 / target for target in TARGETS]
    assert chisquare([counts[t] for t in TARGETS], [draws * w / sum(weights) for w in weights]).pvalue > 1e-4


def test_a_share_of_the_explored_subnets_follows_one_multiplier():
    shared = {tuple(row) for row in shared_multiplier_subnets(SPACE, all_resolutions=True)[0].tolist()}
    for share in (0.0, 0.4, 1.0):
        sampler = one_constraint(shared_share=share)
        target = 8
        members = [
            tuple(row)
            for row in SPACE.enumerate()
            if FLOPS_TARGETS.nearest_target_index(FLOPS(np.array([row])))[0] == 3
        ]
        assert 0 < sum(row in shared for row in members) < len(members)
        assert sampler.conditional_samplers["flops"].count(target) == len(members)
        drawn = [d for d in (sampler.draw(1.0) for _ in range(6000)) if d.target == target]
        found = sum(tuple(SPACE.encode([draw.subnet])[0].tolist()) in shared for draw in drawn)
        by_chance = sum(SPACE.probabilities(np.array([row]))[0] for row in members if row in shared) / sum(
            SPACE.probabilities(np.array([row]))[0] for row in members
        )
        assert binomtest(found, len(drawn), share + (1 - share) * by_chance).pvalue > 1e-4


def test_the_power_of_draws_from_pools_is_another():
    sampler = one_constraint(target_power=(1.0, 0.0), pool_size=1)
    while not all(pool.is_full for pool in sampler.pools.values()):
        sampler.update(sampler.draw(1.0), -1.0)
    counts = Counter(sampler.draw(0.0).target for _ in range(4500))
    assert chisquare([counts[target] for target in TARGETS]).pvalue > 1e-4


def test_dominated_targets_are_drawn_oftener():
    sampler = one_constraint(need=3.0, pool_size=1)
    scores = dict(zip(TARGETS, (-9, -5, -6, -4, -4, -4.5, -3, -2, -3), strict=True))  # 8, 14 and 20 are dominated
    for target, score in scores.items():
        indices, _ = sampler.conditional_samplers["flops"].draw_many(target, 1, np.random.default_rng(0))
        sampler.rescore({("flops", target): {sampler.space.decode(indices[0]): score}})
    dominated = {8, 14, 20}
    assert sampler.dominated_targets() == [("flops", target) for target in sorted(dominated)]
    draws = 6000
    counts = Counter(sampler.draw(0.0).target for _ in range(draws))
    weights = [3 if target in dominated else 1 for target in TARGETS]
    assert chisquare([counts[t] for t in TARGETS], [draws * w / sum(weights) for w in weights]).pvalue > 1e-4


def test_targets_in_turn_go_up_and_down():
    sampler = one_constraint(in_turn=True)
    drawn = [sampler.draw(1.0).target for _ in range(40)]
    period = [*TARGETS, *TARGETS[-2:0:-1]]
    assert drawn == list(itertools.islice(itertools.cycle(period), 40))


@pytest.mark.parametrize("options", [dict(in_turn=True), dict(age_correction=True), dict(target_power=(0.5, 1.0))])
def test_state_continues_with_identical_draws(options):
    sampler = one_constraint(pool_size=3, **options)
    train(sampler, 200, p_explore=0.5)
    state = json.loads(json.dumps(sampler.state_dict()))
    other = one_constraint(pool_size=3, seed=99, **options)
    train(other, 50, p_explore=1.0)
    other.load_state_dict(state)
    assert train(other, 300, 0.3, seed=2) == train(sampler, 300, 0.3, seed=2)
    assert json.dumps(other.state_dict()) == json.dumps(sampler.state_dict())


def test_pools_that_do_not_learn_change_by_scoring_anew_alone():
    sampler = one_constraint(learns=False, pool_size=4)
    assert all(draw.explored for draw in train(sampler, 300, p_explore=0.0))
    assert not any(len(pool) for pool in sampler.pools.values())
    to_score = sampler.to_score(fresh=3)
    cheapest = ("flops", 4)
    sampler.rescore({key: dict.fromkeys(found, -1.0) for key, found in to_score.items() if key != cheapest}, keep=2)
    assert all(len(pool) == min(2, len(to_score[key])) for key, pool in sampler.pools.items() if key != cheapest)
    for draw in train(sampler, 300, p_explore=0.0):
        assert draw.explored == (draw.target == 4)


def test_what_is_scored_anew():
    sampler = one_constraint(pool_size=2)
    train(sampler, 300, p_explore=1.0)
    members = {key: {entry.subnet for entry in pool} for key, pool in sampler.pools.items()}
    count = sampler.conditional_samplers["flops"].count
    assert sampler.to_score(fresh=0).keys() == members.keys()
    assert {key: set(found) for key, found in sampler.to_score(fresh=0).items()} == members
    for (_, target), found in sampler.to_score(fresh=3).items():
        assert members["flops", target] <= set(found)
        assert len(found) == min(len(members["flops", target]) + 3, count(target))
        for subnet, resource in found.items():
            assert resource == flops_by_hand(subnet["a"], subnet["b"], subnet["r"])
            assert round(resource / 2) * 2 == target
    smallest, largest = sampler.space.smallest, sampler.space.largest
    assert smallest in sampler.to_score(fresh=1)["flops", 4]
    assert largest in sampler.to_score(fresh=1)["flops", 20]


def test_scoring_anew_keeps_the_best_and_their_visits():
    sampler = one_constraint(pool_size=3)
    train(sampler, 500, p_explore=1.0)
    pool = sampler.pools["flops", 10]
    visits = {entry.subnet: entry.visits for entry in pool}
    found = sampler.to_score(fresh=4)["flops", 10]
    scores = {subnet: -float(rank) for rank, subnet in enumerate(found)}
    sampler.rescore({("flops", 10): scores}, keep=2)
    assert {entry.subnet: entry.score for entry in pool} == dict(sorted(scores.items(), key=lambda item: -item[1])[:2])
    assert all(entry.visits == visits.get(entry.subnet, 0) for entry in pool)
    assert all(entry.resource == found[entry.subnet] for entry in pool)
    with pytest.raises(TrainingDivergedError):
        sampler.rescore({("flops", 10): {next(iter(found)): math.nan}})


def test_age_correction_compares_with_the_usual_score_of_the_time():
    """The loss falls: without the correction the subnet that was visited last is the best."""
    plain, corrected = (one_constraint(pool_size=50, age_correction=on) for on in (False, True))
    for sampler in (plain, corrected):
        draws = [draw for draw in (sampler.draw(1.0) for _ in range(3000)) if draw.target == 10]
        quality = {subnet: rank for rank, subnet in enumerate(sorted({d.subnet for d in draws}, key=repr))}
        for step, draw in enumerate(draws):
            sampler.update(draw, -10.0 + 0.05 * step + 0.02 * quality[draw.subnet])
        best = sampler.pools["flops", 10].best(len(quality))
        orders = [quality[entry.subnet] for entry in best] == sorted(quality.values(), reverse=True)
        assert orders == (sampler is corrected)


def test_diverse_members_are_kept():
    best, near, far = Subnet({"a": 1, "b": 1}), Subnet({"a": 1, "b": 2}), Subnet({"a": 2, "b": 3})
    kept = {}
    for min_distance in (0, 2):
        pool = PrioritizedPool(2, min_distance=min_distance)
        for subnet, score in ((best, -1.0), (near, -1.1), (far, -9.0)):
            pool.update(subnet, score, 10.0)
        kept[min_distance] = {entry.subnet for entry in pool}
    assert kept == {0: {best, near}, 2: {best, far}}
    pool = PrioritizedPool(1, min_distance=2)  # none is near a better one: the lowest goes
    pool.update(best, -1.0, 10.0)
    pool.update(far, -0.5, 10.0)
    assert {entry.subnet for entry in pool} == {far}
