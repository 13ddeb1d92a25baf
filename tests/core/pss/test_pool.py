import json
import math

import numpy as np
import pytest
from scipy.stats import chisquare

from pss_razor.core import (
    CheckpointError,
    ConfigError,
    Dimension,
    PrioritizedPool,
    PrioritizedPools,
    SearchSpace,
    Subnet,
    Turnover,
)

SPACE = SearchSpace([Dimension("stem", "channels", tuple(range(8, 89, 8))), Dimension("res", "resolution", (128, 224))])


def subnet(width, resolution=224):
    return Subnet({"stem": width, "res": resolution})


def filled(scores, capacity=None):
    """A pool with one subnet a score: widths 8, 16, …."""
    pool = PrioritizedPool(capacity or len(scores))
    for number, score in enumerate(scores, start=1):
        pool.update(subnet(8 * number), score, resource=100.0 + number)
    return pool


def through_json(value):
    return json.loads(json.dumps(value))


def test_insert_and_average():
    pool = PrioritizedPool(3)
    pool.update(subnet(8), -2.0, 101.5)
    assert [(e.subnet, e.score, e.resource, e.visits) for e in pool] == [(subnet(8), -2.0, 101.5, 1)]
    pool.update(subnet(8), -1.0, 101.5)  # 0.9 * -2 + 0.1 * -1
    pool.update(subnet(8), -4.0, 101.5)  # 0.9 * -1.9 + 0.1 * -4
    (entry,) = pool
    assert entry.score == pytest.approx(-2.11, abs=1e-12)
    assert entry.visits == 3
    assert len(pool) == 1


def test_average_with_another_momentum():
    pool = PrioritizedPool(1, score_momentum=0.25)
    pool.update(subnet(8), -2.0, 0.0)
    pool.update(subnet(8), -1.0, 0.0)
    assert next(iter(pool)).score == pytest.approx(-1.25)


def test_the_same_subnet_in_another_order_is_no_new_entry():
    pool = PrioritizedPool(2)
    pool.update(Subnet({"stem": 8, "res": 128}), -1.0, 0.0)
    pool.update(Subnet({"res": 128, "stem": 8}), -1.0, 0.0)
    assert len(pool) == 1


def test_drops_the_lowest_above_capacity():
    pool = filled([-3.0, -1.0, -2.0])
    assert pool.is_full
    pool.update(subnet(88), -1.5, 0.0)
    assert [entry.subnet for entry in pool] == [subnet(16), subnet(24), subnet(88)]
    pool.update(subnet(80), -9.0, 0.0)  # the newcomer itself is the lowest
    assert subnet(80) not in pool
    assert [entry.subnet for entry in pool] == [subnet(16), subnet(24), subnet(88)]


def test_a_known_subnet_drops_nobody_and_can_fall_to_the_bottom():
    pool = filled([-1.0, -2.0])
    pool.update(subnet(8), -30.0, 0.0)  # now -3.9
    assert len(pool) == 2
    pool.update(subnet(88), -3.0, 0.0)
    assert [entry.subnet for entry in pool] == [subnet(16), subnet(88)]


def test_always_keeps_the_highest_scores():
    rng = np.random.default_rng(0)
    space = SearchSpace([Dimension("w", "value", tuple(range(200)))])
    scores = rng.normal(size=200)
    pool = PrioritizedPool(7)
    for number, score in enumerate(scores):
        pool.update(space.decode(np.array([number])), score, 0.0)
        assert len(pool) == min(number + 1, 7)
        assert sorted(entry.score for entry in pool) == sorted(scores[: number + 1])[-7:]


def test_is_full_and_contains():
    pool = PrioritizedPool(2)
    assert not pool.is_full
    pool.update(subnet(8), -1.0, 0.0)
    pool.update(subnet(8), -1.0, 0.0)
    assert not pool.is_full  # twice the same
    assert subnet(8) in pool
    assert subnet(16) not in pool
    pool.update(subnet(16), -1.0, 0.0)
    assert pool.is_full


@pytest.mark.parametrize("capacity", [0, -1])
def test_capacity_must_be_positive(capacity):
    with pytest.raises(ConfigError, match=f"pool_size = {capacity}"):
        PrioritizedPool(capacity)


@pytest.mark.parametrize("score", [float("nan"), float("-inf"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error_and_changes_nothing(score):
    pool = filled([-1.0, -2.0], capacity=3)
    for width in (8, 88):  # known, new
        with pytest.raises(FloatingPointError, match=rf"stem={width}, res=224\) is -?(nan|inf): .*diverged"):
            pool.update(subnet(width), score, 0.0)
    assert [(entry.subnet, entry.score, entry.visits) for entry in pool] == [
        (subnet(8), -1.0, 1),
        (subnet(16), -2.0, 1),
    ]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_draws_follow_the_softmax(temperature):
    scores = [-2.1, -1.0, -1.4, -3.0, -1.2]
    pool = filled(scores)
    rng = np.random.default_rng(1)
    draws = 10_000
    widths = [pool.draw(temperature, rng)["stem"] for _ in range(draws)]
    counts = [widths.count(8 * number) for number in range(1, 6)]
    weights = [math.exp(score / temperature) for score in scores]
    assert chisquare(counts, [draws * weight / sum(weights) for weight in weights]).pvalue > 1e-4


def test_a_low_temperature_takes_the_best_without_overflow():
    pool = filled([-900.0, -5000.0, -880.0, -881.0])
    rng = np.random.default_rng(0)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert {pool.draw(0.01, rng) for _ in range(50)} == {subnet(24)}


def test_best_is_in_order_of_the_score():
    pool = filled([-3.0, -1.0, -2.0, -4.0])
    assert [entry.subnet["stem"] for entry in pool.best(3)] == [16, 24, 8]
    assert [entry.score for entry in pool.best(10)] == [-1.0, -2.0, -3.0, -4.0]  # what it has
    assert PrioritizedPool(2).best(5) == []
    assert [entry.subnet["stem"] for entry in pool] == [8, 16, 24, 32]  # the pool's own order is untouched


def test_records_keep_everything_and_the_draws():
    pool = filled([-3.0, -1.0, -1.5, -1.2, -1.1])
    pool.update(subnet(8), -0.5, 101.0)
    pool.update(subnet(48), -1.3, 106.0)
    records = through_json(pool.to_records(SPACE))
    assert records[-1] == {
        "channels": {"stem": 48},
        "resolution": 224,
        "score": -1.3,
        "resource": 106.0,
        "visits": 1,
        "first_step": None,
        "last_step": None,
    }
    other = PrioritizedPool(5)
    other.update(subnet(88, 128), -0.1, 0.0)  # to be replaced
    other.load_records(SPACE, records)
    assert list(other) == list(pool)
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    assert [pool.draw(0.5, first) for _ in range(200)] == [other.draw(0.5, second) for _ in range(200)]


def test_entries_remember_when():
    pool = PrioritizedPool(2)
    pool.update(subnet(8), -2.0, 1.0, step=3)
    pool.update(subnet(16), lambda: -1.0, 2.0, step=4)
    pool.update(subnet(8), -2.0, 1.0, step=9)
    assert [(e.first_step, e.last_step, e.visits) for e in pool] == [(3, 9, 2), (4, 4, 1)]
    other = PrioritizedPool(2)
    other.load_records(SPACE, through_json(pool.to_records(SPACE)))
    assert list(other) == list(pool)


def test_records_without_steps_load():
    records = filled([-3.0, -1.0]).to_records(SPACE)
    old = [{k: v for k, v in record.items() if not k.endswith("_step")} for record in records]  # as version 0.2 wrote
    pool = PrioritizedPool(2)
    pool.load_records(SPACE, old)
    assert [(e.score, e.first_step, e.last_step) for e in pool] == [(-3.0, None, None), (-1.0, None, None)]
    pool.update(subnet(8), -3.0, 101.0, step=5)
    assert (pool[subnet(8)].first_step, pool[subnet(8)].last_step) == (None, 5)


def test_turnover():
    pool = PrioritizedPool(2)
    assert pool.turnover == Turnover(0, 0, 0)
    rng = np.random.default_rng(0)
    came, known = 0, set()
    for step in range(300):
        chosen = subnet(8 * int(rng.integers(1, 12)))
        came += chosen not in known
        pool.update(chosen, rng.normal(), 0.0, step)
        known = {entry.subnet for entry in pool}
    assert pool.turnover == Turnover(300, came, came - 2) and came > 50


def test_turnover_counts_unread_scores():
    pool = PrioritizedPool(1)
    pool.update(subnet(8), lambda: -1.0, 0.0)
    pool.update(subnet(16), lambda: -2.0, 0.0)  # the newcomer is dropped
    assert pool.turnover == Turnover(2, 2, 1)
    assert [entry.subnet for entry in pool] == [subnet(8)]


@pytest.mark.parametrize("steps", [{"first_step": -1}, {"last_step": 1.5}, {"first_step": "x"}, {"last_step": True}])
def test_a_damaged_step_is_a_checkpoint_error(steps):
    state = through_json(filled_pools().state_dict(SPACE))
    state["flops"]["70"][0].update(steps)
    with pytest.raises(CheckpointError, match="is no count"):
        PrioritizedPools(CAPACITIES).load_state_dict(SPACE, state)


def test_saved_turnover():
    pools = filled_pools()
    pools["flops", 70].update(subnet(88), -99.0, 0.0)
    other = PrioritizedPools(CAPACITIES)
    other.load_turnover_state(through_json(pools.turnover_state()))
    assert {key: pool.turnover for key, pool in other.items()} == {
        ("flops", 70): Turnover(3, 3, 1),
        ("flops", 80): Turnover(3, 3, 0),
        ("params", 1.5): Turnover(1, 1, 0),
    }


@pytest.mark.parametrize(
    "damaged", [{}, {"flops": {"70": {"visits": 1, "insertions": 1, "drops": None}}}, [], {"flops": 3}]
)
def test_a_damaged_turnover_is_a_checkpoint_error(damaged):
    with pytest.raises(CheckpointError, match="the turnover of the pool flops = 70"):
        filled_pools().load_turnover_state(damaged)


CAPACITIES = {("flops", 70): 2, ("flops", 80): 3, ("params", 1.5): 1}


def filled_pools():
    pools = PrioritizedPools(CAPACITIES)
    for number, pool in enumerate(pools.values(), start=1):
        for width in range(8, 8 + 8 * pool.capacity, 8):
            pool.update(subnet(width * number if number < 3 else width), -1.0 / width, 10.0 * number)
    return pools


def test_pools_are_a_mapping_with_their_own_capacities():
    pools = PrioritizedPools(CAPACITIES, score_momentum=0.5)
    assert list(pools) == list(CAPACITIES)
    assert len(pools) == 3
    assert {key: pool.capacity for key, pool in pools.items()} == CAPACITIES
    assert {pool.score_momentum for pool in pools.values()} == {0.5}
    with pytest.raises(KeyError):
        pools["flops", 90]


def test_pools_state_survives_json():
    pools = filled_pools()
    state = through_json(pools.state_dict(SPACE))
    assert {(metric, target) for metric in state for target in state[metric]} == {
        ("flops", "70"),
        ("flops", "80"),
        ("params", "1.5"),
    }
    other = PrioritizedPools(CAPACITIES)
    other.load_state_dict(SPACE, state)
    for key in CAPACITIES:
        assert len(pools[key]) == CAPACITIES[key]
        assert list(other[key]) == list(pools[key])


@pytest.mark.parametrize(
    ("capacities", "message"),
    [
        ({("flops", 70): 2, ("flops", 80): 3}, "params = 1.5 is in the checkpoint, not in the config"),
        ({**CAPACITIES, ("flops", 90): 2}, "flops = 90 is in the config, not in the checkpoint"),
        ({("flops", 70): 2, ("latency", 80): 3, ("params", 1.5): 1}, r"flops = 80 is in the checkpoint.*\(2 pools"),
    ],
)
def test_pools_of_other_constraints_are_an_error(capacities, message):
    state = through_json(filled_pools().state_dict(SPACE))
    with pytest.raises(CheckpointError, match=message):
        PrioritizedPools(capacities).load_state_dict(SPACE, state)


@pytest.mark.parametrize(
    "dimensions",
    [
        [Dimension("stem", "channels", (8, 88)), Dimension("res", "resolution", (128, 224))],  # a width is missing
        [Dimension("stage", "channels", tuple(range(8, 89, 8))), Dimension("res", "resolution", (128, 224))],
        [Dimension("stem", "value", tuple(range(8, 89, 8))), Dimension("res", "resolution", (128, 224))],
    ],
)
def test_pools_of_another_space_are_an_error(dimensions):
    state = through_json(filled_pools().state_dict(SPACE))
    with pytest.raises(CheckpointError, match=r"the pool flops = \d+ of the checkpoint is not of this search space"):
        PrioritizedPools(CAPACITIES).load_state_dict(SearchSpace(dimensions), state)


@pytest.mark.parametrize(
    ("key", "named"),
    [("score", "score"), ("resource", "resource"), ("visits", "visits"), ("channels", "stem"), ("resolution", "res")],
)
def test_an_incomplete_record_is_an_error(key, named):
    state = through_json(filled_pools().state_dict(SPACE))
    del state["flops"]["80"][1][key]
    with pytest.raises(CheckpointError, match=f"the pool flops = 80 .*'{named}'"):
        PrioritizedPools(CAPACITIES).load_state_dict(SPACE, state)


def test_numpy_scores_can_be_saved():
    pool = PrioritizedPool(2)
    pool.update(subnet(8), np.float32(-1.5), np.float32(101.0))
    assert through_json(pool.to_records(SPACE))[0]["score"] == -1.5


def test_a_larger_pool_is_cut_to_the_capacity():
    records = filled([-3.0, -1.0, -2.0, -4.0]).to_records(SPACE)
    pool = PrioritizedPool(2)
    pool.load_records(SPACE, records)
    pool.update(subnet(88), -0.5, 0.0)
    assert [entry.score for entry in pool.best(9)] == [-0.5, -1.0]


@pytest.mark.parametrize("record", ["8-224", {"channels": {"stem": 8}, "resolution": 224, "score": "x"}])
def test_a_damaged_record_is_a_checkpoint_error(record):
    state = through_json(filled_pools().state_dict(SPACE))
    state["flops"]["70"][0] = {"resource": 1, "visits": 1, **record} if isinstance(record, dict) else record
    with pytest.raises(CheckpointError):
        PrioritizedPools(CAPACITIES).load_state_dict(SPACE, state)
