import numpy as np
import pytest

from pss_razor.core import ConfigError, Constraint, build_constraints

CONSTRAINTS = [
    Constraint("flops", 70, 300, 10),
    Constraint("latency_cpu", 12000, 28000, 1000),
    Constraint("flops", 75, 295, 20),  # offset 15
    Constraint("flops", 13, 13, 5),  # one target, offset 3
    Constraint("flops", 5, 65, 20),  # first below step: offset 5
    Constraint("params", 2.5, 7.5, 0.25),
    Constraint("params", 0.3, 2.1, 0.1),  # neither is exact in binary
    Constraint("params", -4, 6, 2.5),  # offset 1
]


def ids(constraint):
    return f"{constraint.first}-{constraint.last}-{constraint.step}"


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=ids)
def test_follows_the_formula_of_the_method(constraint):
    first, last, step = constraint.first, constraint.last, constraint.step
    rng = np.random.default_rng(0)
    span = last - first + 4 * step
    resources = rng.uniform(first - 2 * step, first - 2 * step + span, 2000).tolist()
    resources += [first + i * step / 4 for i in range(-8, 4 * 100)]  # targets, and exactly halfway between them
    offset = first % step
    targets = constraint.targets
    indices = constraint.nearest_target_index(np.array(resources))
    assert indices.dtype == np.int64
    for resource, index in zip(resources, indices.tolist(), strict=True):
        belongs_to = round((resource - offset) / step) * step + offset
        if index == -1:
            assert belongs_to < first - step / 2 or belongs_to > last + step / 2, resource
        else:
            assert 0 <= index < len(targets)
            assert targets[index] == pytest.approx(belongs_to, abs=1e-9), resource
    assert set(indices.tolist()) == {-1, *range(len(targets))}


def test_targets_by_hand():
    assert Constraint("flops", 70, 300, 10).targets == tuple(range(70, 301, 10))
    assert Constraint("flops", 75, 155, 20).targets == (75, 95, 115, 135, 155)
    assert Constraint("params", 0.1, 0.7, 0.2).targets == (0.1, 0.3, 0.5, 0.7)
    assert Constraint("flops", 13, 13, 5).targets == (13,)


def test_whole_targets_are_ints_however_they_are_written():
    constraint = Constraint("params", 1.0, 3.0, 0.5)
    assert constraint.targets == (1, 1.5, 2, 2.5, 3)
    assert [type(target) for target in constraint.targets] == [int, float, int, float, int]
    assert {type(target) for target in Constraint("flops", 70.0, 300.0, 10.0).targets} == {int}


def test_indices_by_hand():
    constraint = Constraint("flops", 75, 155, 20)
    resources = [0.0, 64.9, 65.1, 75, 84.9, 85.1, 134, 155, 164.9, 165.1, 1e6, -75.0]
    assert constraint.nearest_target_index(np.array(resources)).tolist() == [-1, -1, 0, 0, 0, 1, 3, 4, 4, -1, -1, -1]


def test_halfway_goes_to_the_even_number_of_steps():
    # 75 is 7.5 steps and 85 is 8.5: both round to 8; 65 is 6.5 and rounds to 6, no target
    assert Constraint("flops", 70, 300, 10).nearest_target_index(np.array([65, 75, 85, 305])).tolist() == [-1, 1, 1, 23]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=ids)
def test_each_target_belongs_to_itself(constraint):
    indices = constraint.nearest_target_index(np.array(constraint.targets))
    assert indices.tolist() == list(range(len(constraint.targets)))


def test_no_resources():
    assert Constraint("flops", 70, 300, 10).nearest_target_index(np.array([])).shape == (0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((70, 300, 0), "step = 0 must be positive"),
        ((70, 300, -10), "step = -10 must be positive"),
        ((300, 70, 10), "last = 70 is below first = 300"),
        ((70, 305.5, 10), "not a whole number of steps of 10; try last = 310"),
        ((70, 304, 10), "try last = 300"),
        ((0.1, 0.55, 0.2), "try last = 0.5"),
    ],
)
def test_impossible_targets(values, message):
    with pytest.raises(ConfigError, match=message):
        Constraint("flops", *values)


def test_from_config():
    config = {"metric": "flops", "first": 70, "last": 300, "step": 10}
    assert Constraint.from_config(config) == Constraint("flops", 70, 300, 10)
    assert Constraint.from_config({**config, "step": 2.5}).step == 2.5


@pytest.mark.parametrize("key", ["metric", "first", "last", "step"])
def test_from_config_names_the_missing_key(key):
    config = {"metric": "flops", "first": 70, "last": 300, "step": 10}
    del config[key]
    with pytest.raises(ConfigError, match=rf"misses \['{key}'\]; example: "):
        Constraint.from_config(config)


@pytest.mark.parametrize(
    ("key", "hint"), [("stepp", "did you mean 'step'"), ("frist", "did you mean 'first'"), ("xyz", "its keys are")]
)
def test_from_config_hints_at_a_misspelt_key(key, hint):
    with pytest.raises(ConfigError, match=f"unknown key '{key}'; {hint}"):
        Constraint.from_config({"metric": "flops", "first": 70, "last": 300, "step": 10, key: 5})


@pytest.mark.parametrize("value", ["70", None, True, [70]])
@pytest.mark.parametrize("key", ["first", "last", "step"])
def test_from_config_wants_numbers(key, value):
    config = {"metric": "flops", "first": 70, "last": 300, "step": 10, key: value}
    with pytest.raises(ConfigError, match=f"constraint on flops: {key} = .* must be a number"):
        Constraint.from_config(config)


def test_from_config_checks_the_grid():
    with pytest.raises(ConfigError, match="not a whole number of steps"):
        Constraint.from_config({"metric": "flops", "first": 70, "last": 299, "step": 10})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["first", "last", "step"])
def test_wants_finite_numbers(key, value):
    with pytest.raises(ConfigError, match="finite"):
        Constraint(**{"metric": "flops", "first": 70, "last": 300, "step": 10, key: value})


def test_the_proposed_last_target_is_on_the_grid():
    with pytest.raises(ConfigError, match="try last = 3434567"):
        Constraint("params", 1_234_567, 3_456_789, 100_000)


@pytest.mark.parametrize(
    ("low", "high", "count"), [(12351.2187, 27885.876, 17), (1.815, 6.126, 9), (0.0012, 0.0034, 5), (70, 300, 24)]
)
def test_spread_covers_the_range_with_as_many_targets(low, high, count):
    constraint = Constraint.spread("latency", count, low, high)
    targets = constraint.targets
    assert len(targets) == count
    # The ends of the range belong to the first and the last target.
    assert constraint.nearest_target_index(np.array([low, high])).tolist() == [0, count - 1]
    assert float(f"{constraint.step:.3g}") == constraint.step


def test_num_targets_asks_for_the_range_of_its_metric_only():
    asked = []

    def resource_range(metric):
        asked.append(metric)
        return 10.0, 20.0

    configs = [dict(metric="flops", first=1, last=3, step=1), dict(metric="latency", num_targets=6)]
    constraints = build_constraints(configs, ["flops", "latency"], resource_range)
    assert asked == ["latency"]
    assert [c.targets for c in constraints] == [(1, 2, 3), (10, 12, 14, 16, 18, 20)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(metric="flops", num_target=6), "unknown key 'num_target'; did you mean 'num_targets'"),
        (dict(metric="flops", num_targets=6.5), "num_targets = 6.5 must be a whole number"),
        (dict(metric="flops", num_targets=6, step=1), "unknown key 'step'"),
        (dict(metric="flops", num_targets=1), "num_targets = 1 from 10 to 20; at least 2 targets"),
        (dict(metric="other", num_targets=6), "the metric 'other', which has no estimator"),
    ],
)
def test_num_targets_errors(config, message):
    with pytest.raises(ConfigError, match=message):
        build_constraints([config], ["flops"], lambda metric: (10.0, 20.0))
