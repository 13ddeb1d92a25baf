"""Statistics over seeds against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pss_razor.comparison.seed_statistics import (
    binomial_error,
    find_dominating,
    mean_over_log_resource,
    paired_difference,
    summarise_seeds,
)


def test_mean_and_standard_error():
    values = {0: 71.0, 4: 74.0, 9: 77.0}
    row = summarise_seeds(values)
    assert row["mean"] == 74 and row["standard_error"] == pytest.approx(3 / math.sqrt(3))
    assert row["values"] == {"0": 71.0, "4": 74.0, "9": 77.0}
    assert summarise_seeds({3: 5.0})["standard_error"] is None


def test_a_paired_difference_is_over_shared_seeds():
    rng = np.random.default_rng(0)
    seed_effect, first, second = rng.normal(0, 5, 5), rng.normal(1, 0.1, 5), rng.normal(0, 0.1, 5)
    a, b = seed_effect + first, seed_effect + second
    row = paired_difference({**dict(enumerate(a)), 8: 99.0}, {**dict(enumerate(b)), 9: -99.0})
    expected = np.std(a - b, ddof=1) / np.sqrt(5)
    assert row["mean"] == pytest.approx((a - b).mean()) and row["standard_error"] == pytest.approx(expected)
    assert row["ratio"] == pytest.approx((a - b).mean() / expected) and row["ratio"] > 10
    assert list(row["values"]) == ["0", "1", "2", "3", "4"]
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: 1.0}, {0: 3.0})["ratio"] is None  # one seed
    assert paired_difference({0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0})["ratio"] is None  # no spread


def test_mean_over_log_resource():
    # In log2: 0, 1, 3. The trapezoids are 1 * 15 and 2 * 30, over a range of 3.
    points = [(8.0, 40.0), (1.0, 10.0), (2.0, 20.0)]
    assert mean_over_log_resource(points) == pytest.approx((15 + 60) / 3)
    # From sqrt(2), where the line is at 15, to 4, where it is at 30: log2 is 0.5 to 2.
    assert mean_over_log_resource(points, math.sqrt(2), 4) == pytest.approx((0.5 * 17.5 + 1 * 25) / 1.5)
    # A finer grid on the same line changes nothing, and so does another unit.
    middle = (4.0, 30.0)
    assert mean_over_log_resource([*points, middle]) == pytest.approx(25)
    assert mean_over_log_resource([(r * 1e3, a) for r, a in points]) == pytest.approx(25)
    assert mean_over_log_resource([(2.0, 1.0)]) is None and mean_over_log_resource([]) is None
    assert mean_over_log_resource(points, 4, 4) is None and mean_over_log_resource(points, 4, 2) is None


def test_the_binomial_error_is_that_of_simulated_accuracies():
    rng = np.random.default_rng(1)
    differences = (rng.binomial(400, 0.9, 100_000) - rng.binomial(400, 0.6, 100_000)) / 4
    assert binomial_error(90, 60, 400) == pytest.approx(differences.std(), rel=0.01)


@pytest.mark.parametrize(
    ("own", "cheaper", "expected"),
    [
        # differences 1 and 3: 2 ± 1
        ({0: 70.0, 1: 70.0}, {"smallest": {0: 71.0, 1: 73.0}}, ("smallest", 2.0, 1.0)),
        # differences 0 and 2: 1 ± 1, which is no more than a standard error
        ({0: 70.0, 1: 70.0}, {"smallest": {0: 70.0, 1: 72.0}}, None),
        # the same subnet
        ({0: 70.0, 1: 75.0}, {"smallest": {0: 70.0, 1: 75.0}}, None),
        # always better by the same
        ({0: 70.0, 1: 75.0}, {"smallest": {0: 70.25, 1: 75.25}}, ("smallest", 0.25, 0.0)),
        # the one that is better by most, with what the seeds share
        (
            {0: 70.0, 1: 70.0},
            {"smallest": {0: 71.0, 1: 73.0}, "a": {0: 73.0, 1: 73.0, 2: 0.0}, "b": {2: 99.0}},
            ("a", 3.0, 0.0),
        ),
        # one seed, 100 images: sqrt(0.21 + 0.24) * 10 = 6.708
        ({0: 70.0}, {"smallest": {0: 60.0}}, None),
        ({0: 60.0}, {"smallest": {0: 66.7}}, None),
        ({0: 60.0}, {"smallest": {0: 70.0}}, ("smallest", 10.0, 10 * math.sqrt(0.45))),
    ],
)
def test_what_dominates(own, cheaper, expected):
    found = find_dominating(own, cheaper, 100)
    if expected is None:
        assert found is None
    else:
        by, difference, error = expected
        assert found == {"by": by, "difference": pytest.approx(difference), "standard_error": pytest.approx(error)}


def test_what_dominates_where_less_is_better():
    found = find_dominating({0: 40.0}, {"smallest": {0: 30.0}, "a": {0: 90.0}}, 100, rule="less")
    assert found["by"] == "smallest" and found["difference"] == 10
    assert found["standard_error"] == pytest.approx(10 * math.sqrt(0.45))
    assert find_dominating({0: 40.0}, {"a": {0: 90.0}}, 100, rule="less") is None


def test_one_seed_shows_nothing_without_the_number_of_images():
    assert find_dominating({0: 1.0}, {"smallest": {0: 50.0}}, None) is None
    assert find_dominating({0: 1.0, 1: 2.0}, {"smallest": {0: 50.0, 1: 51.0}}, None) is not None
