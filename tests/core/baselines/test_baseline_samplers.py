"""The baselines against a fine grid of multipliers, and their draws and candidates against loops by hand."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from mbv2_by_hand import mbv2_cost, mbv2_space
from scipy.stats import chisquare

from pss_razor.core import (
    BASELINE_SAMPLERS,
    AdditiveCost,
    CheckpointError,
    ConfigError,
    Constraint,
    CostTerm,
    Dimension,
    PrioritizedSubnetSampler,
    SearchSpace,
    TrainingDivergedError,
    UnreachableTargetError,
    make_divisible,
    shared_multiplier_subnets,
    width_choices,
)

BASES = {"stem": 32, "stage1": 64, "stage2": 160}
RESOLUTIONS, P_RESOLUTIONS = (16, 24, 32), (0.5, 0.3, 0.2)


def make_space(low=0.5, high=1.0, bases=BASES, resolution=True):
    dimensions = []
    for name, base in bases.items():
        choices = width_choices(base, low, high)
        dimensions.append(Dimension(name, "channels", tuple(choices), tuple(choices.values())))
    # in the middle, so that no one counts on its place
    extra = [Dimension("resolution", "resolution", RESOLUTIONS, P_RESOLUTIONS)] if resolution else []
    return SearchSpace([*dimensions[:1], *extra, *dimensions[1:]])


SPACE = make_space()


def cost_of(space, resolution_weight=10.0):
    """The sum of all widths, and some for the resolution."""
    terms = [
        CostTerm((d.name,), np.array(d.values, dtype=float) * (resolution_weight if d.kind == "resolution" else 1.0))
        for d in space.dimensions
    ]
    return AdditiveCost(space, terms)


COSTS = {"flops": cost_of(SPACE), "params": cost_of(SPACE, 0.0)}
# 128 + 160 … 256 + 320
CONSTRAINTS = [Constraint("flops", 240, 600, 40), Constraint("params", 130, 250, 30)]


def make(method, seed=0, costs=COSTS, constraints=CONSTRAINTS):
    return BASELINE_SAMPLERS[method](costs, constraints, seed=seed)


# The list of subnets of one multiplier


@pytest.mark.parametrize(("low", "high"), [(0.75, 1.0), (0.5, 1.0), (0.25, 1.0), (0.6, 0.9)])
def test_subnets_of_one_multiplier_against_a_fine_grid(low, high):
    space = make_space(low, high, {**BASES, "stage3": 24, "stage4": 1280}, resolution=False)
    indices, probabilities = shared_multiplier_subnets(space, all_resolutions=True)
    exact = {tuple(space.decode(row).values()): p for row, p in zip(indices, probabilities, strict=True)}
    bases = [*BASES.values(), 24, 1280]
    steps = 200_000
    multipliers = low + (np.arange(steps) + 0.5) / steps * (high - low)
    grid = Counter(tuple(make_divisible(base * m) for base in bases) for m in multipliers.tolist())
    assert list(exact) == sorted(grid)  # all of them, each once, from narrow to wide
    for widths, count in grid.items():
        assert exact[widths] == pytest.approx(count / steps, abs=2 / steps)
    assert sum(probabilities) == pytest.approx(1, abs=1e-12)


def test_breakpoints_that_are_equal_but_for_rounding_make_no_subnet():
    # 0.1 + 0.2 is not 0.3
    dimensions = [
        Dimension("a", "channels", (8, 16, 24), (0.1, 0.2, 0.7)),
        Dimension("b", "channels", (8, 16), (0.3, 0.7)),
    ]
    indices, probabilities = shared_multiplier_subnets(SearchSpace(dimensions), all_resolutions=True)
    assert indices.tolist() == [[0, 0], [1, 0], [2, 1]]
    assert probabilities == pytest.approx([0.1, 0.2, 0.7])


def test_resolutions_are_independent_of_the_multiplier():
    widths, lengths = shared_multiplier_subnets(make_space(resolution=False), all_resolutions=True)
    indices, probabilities = shared_multiplier_subnets(SPACE, all_resolutions=True)
    expected = {
        (*row[:1], r, *row[1:]): P_RESOLUTIONS[r] * p
        for row, p in zip(widths.tolist(), lengths, strict=True)
        for r in range(3)
    }
    assert dict(zip(map(tuple, indices.tolist()), probabilities, strict=True)) == pytest.approx(expected)
    assert len(indices) == 3 * len(widths)
    largest, alone = shared_multiplier_subnets(SPACE, all_resolutions=False)
    assert set(largest[:, 1].tolist()) == {2} and np.delete(largest, 1, axis=1).tolist() == widths.tolist()
    assert alone == pytest.approx(lengths)


def test_ends_of_the_space_are_in_the_list():
    indices, _ = shared_multiplier_subnets(SPACE, all_resolutions=True)
    subnets = {SPACE.decode(row) for row in indices}
    assert SPACE.largest in subnets and SPACE.smallest in subnets


@pytest.mark.parametrize("kind", ["op", "value"])
@pytest.mark.parametrize("method", ["usnet", "mutualnet"])
def test_groups_without_a_multiplier_are_an_error(method, kind):
    space = SearchSpace([*SPACE.dimensions, Dimension("kernel", kind, (3, 5))])
    with pytest.raises(ConfigError, match=r"\['kernel'\] are no widths.*'uniform'"):
        make(method, costs={"flops": cost_of(space)}, constraints=CONSTRAINTS[:1])


# Draws


@pytest.mark.parametrize("method", ["usnet", "mutualnet"])
def test_draws_follow_the_list(method):
    sampler = make(method)
    draws = 20_000
    observed = Counter(sampler.draw().subnet for _ in range(draws))
    indices, probabilities = shared_multiplier_subnets(SPACE, method == "mutualnet")
    assert set(observed) == {SPACE.decode(row) for row in indices}
    counts = [observed[SPACE.decode(row)] for row in indices]
    assert chisquare(counts, probabilities * draws).pvalue > 1e-4


def test_uniform_draws_follow_the_space():
    sampler = make("uniform")
    draws = 30_000
    observed = Counter(tuple(SPACE.encode([sampler.draw().subnet])[0].tolist()) for _ in range(draws))
    rows = SPACE.enumerate()
    assert chisquare([observed[tuple(row)] for row in rows.tolist()], SPACE.probabilities(rows) * draws).pvalue > 1e-4


@pytest.mark.parametrize("method", BASELINE_SAMPLERS)
def test_draws_need_no_pool(method):
    draw = make(method).draw()
    assert draw.explored and draw.metric is draw.target is draw.resource is None


@pytest.mark.parametrize("method", BASELINE_SAMPLERS)
def test_state_continues_with_identical_draws(method):
    def draws(sampler, count):
        return [sampler.draw().subnet for _ in range(count)]

    sampler, other = make(method, seed=1), make(method, seed=2)
    draws(sampler, 100)
    state = json.loads(json.dumps(sampler.state_dict()))
    other.load_state_dict(state)
    expected = draws(sampler, 200)
    assert draws(other, 200) == expected != draws(make(method, seed=1), 200)


@pytest.mark.parametrize("method", BASELINE_SAMPLERS)
def test_candidates_leave_the_draws_as_they_are(method):
    sampler, other = make(method), make(method)
    assert sampler.candidates(3) == sampler.candidates(3)
    assert [sampler.draw() for _ in range(20)] == [other.draw() for _ in range(20)]


@pytest.mark.parametrize("score", [float("nan"), float("-inf")])
def test_divergence_is_an_error(score):
    sampler = make("uniform")
    with pytest.raises(TrainingDivergedError, match="diverged"):
        sampler.update(sampler.draw(), score)
    sampler.update(sampler.draw(), -1.0)


def test_scores_of_a_device_are_read_later():
    sampler, read = make("uniform"), []
    for number in range(20):
        sampler.update(sampler.draw(), lambda number=number: read.append(number) or -1.0)
    assert read == list(range(12))
    sampler.update(sampler.draw(), lambda: float("nan"))
    with pytest.raises(TrainingDivergedError, match="diverged"):
        sampler.state_dict()
    assert read == list(range(20))


def test_states_of_other_methods_are_errors():
    pools = PrioritizedSubnetSampler(COSTS, CONSTRAINTS)
    with pytest.raises(CheckpointError, match=r"misses \['method'\]"):
        make("uniform").load_state_dict(pools.state_dict())
    with pytest.raises(CheckpointError, match=r"misses \['pools'\]"):
        pools.load_state_dict(make("uniform").state_dict())
    with pytest.raises(CheckpointError, match="'usnet', the config has 'mutualnet'"):
        make("mutualnet").load_state_dict(make("usnet").state_dict())


# Candidates and targets


def by_hand(method):
    """(metric, target) -> the subnets of the method that belong to it."""
    if method == "uniform":
        rows = SPACE.enumerate()
    else:
        rows, _ = shared_multiplier_subnets(SPACE, method == "mutualnet")
    members = {}
    for constraint, row in itertools.product(CONSTRAINTS, rows):
        subnet = SPACE.decode(row)
        resource = sum(subnet[name] for name in BASES) + (
            10 * subnet["resolution"] if constraint.metric == "flops" else 0
        )
        for target in constraint.targets:
            assert abs(resource - target) != constraint.step / 2, "a resource between two targets, which by_hand omits"
            if abs(resource - target) < constraint.step / 2:
                members.setdefault((constraint.metric, target), []).append(subnet)
    return members


@pytest.mark.parametrize("method", BASELINE_SAMPLERS)
@pytest.mark.parametrize("top_k", [1, 3, 1000])
def test_candidates_are_distinct_members_of_their_target(method, top_k):
    sampler = make(method)
    candidates = sampler.candidates(top_k)
    assert list(candidates) == sampler.reachable_targets
    for (metric, target), pairs in candidates.items():
        subnets = [subnet for subnet, score in pairs if score is None]
        assert len(subnets) == len(pairs) == len(set(subnets))
        constraint = sampler.conditional_samplers[metric].constraint
        resources = COSTS[metric](SPACE.encode(subnets))
        assert {constraint.targets[i] for i in constraint.nearest_target_index(resources)} == {target}
        assert len(subnets) == min(top_k, sampler.conditional_samplers[metric].count(target))


@pytest.mark.parametrize("method", BASELINE_SAMPLERS)
def test_all_members_are_candidates_where_they_are_few(method):
    candidates = make(method).candidates(1000)
    found = {key: {subnet for subnet, _ in pairs} for key, pairs in candidates.items()}
    assert found == {key: set(members) for key, members in by_hand(method).items()}


def test_candidates_are_spread_over_resolutions():
    sampler = make("mutualnet", constraints=[Constraint("params", 200, 200, 1000)])
    members = sampler.conditional_samplers["params"].members(200)
    three = [subnet["resolution"] for subnet, _ in sampler.candidates(3)["params", 200]]
    assert three == [16, 24, 32]
    ((middle, _),) = sampler.candidates(1)["params", 200]
    assert middle == SPACE.decode(members[len(members) // 2])


def test_targets_without_a_member_are_left_out():
    sampler = make("usnet")
    smallest = 10 * 32 + sum(make_divisible(base * 0.5) for base in BASES.values())
    unreachable = sampler.conditional_samplers["flops"].unreachable_targets
    assert set(unreachable) >= {t for t in CONSTRAINTS[0].targets if t + 20 < smallest} != set()
    assert sampler.conditional_samplers["flops"].resource_range == (smallest, 10 * 32 + 256)
    assert not any(("flops", target) in sampler.candidates(5) for target in unreachable)
    with pytest.raises(UnreachableTargetError, match="no target of flops"):
        make("usnet", constraints=[Constraint("flops", 240, 280, 40)])


def test_mutualnet_on_mobilenet_v2():
    space = mbv2_space()
    sampler = make("mutualnet", costs={"flops": mbv2_cost(space)}, constraints=[Constraint("flops", 70, 300, 10)])
    widths, resolutions = set(), set()
    for row in sampler.indices:
        values = list(space.decode(row).values())
        widths.add(tuple(values[:-1]))
        resolutions.add(values[-1])
    bases = [int(d.values[-1]) for d in space.dimensions if d.kind == "channels"]
    grid = {tuple(make_divisible(b * m) for b in bases) for m in np.linspace(0.75, 1, 100_001)[1:-1].tolist()}
    assert widths == grid and resolutions == set(range(128, 225, 8))


def test_the_narrowest_at_the_spaces_resolutions():
    sampler = make("uniform")
    found = Counter(sampler.draw_narrowest()["resolution"] for _ in range(3000))
    assert chisquare([found[r] for r in RESOLUTIONS], 3000 * np.array(P_RESOLUTIONS)).pvalue > 1e-4
    assert {**sampler.draw_narrowest(), "resolution": 16} == dict(SPACE.smallest)


def test_without_resolutions_there_is_no_other_narrowest():
    space = make_space(resolution=False)
    sampler = make("uniform", costs={"flops": cost_of(space)}, constraints=[Constraint("flops", 130, 250, 30)])
    with pytest.raises(ConfigError, match="the supernet has one resolution alone"):
        sampler.draw_narrowest()
