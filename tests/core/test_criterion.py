from __future__ import annotations

import math

import pytest

from pss_razor.core import ConfigError, Criterion, EvaluatedSubnet, Subnet, best_of_pools


def record(name, accuracy, **others):
    metrics = {"accuracy/top1": accuracy, "accuracy/top5": -accuracy}
    return make(name, metrics, **others)


def make(name, metrics, **others):
    metric, _, target = name.partition("_")
    pool = dict(metric=metric, target=float(target)) if target else dict(metric=None, target=None)
    return EvaluatedSubnet(subnet=Subnet({}), name=name, resources={}, metrics=metrics, **pool, **others)


def test_best_of_pools():
    records = [record("largest", 5), record("flops_1", 1), record("flops_1", 3), record("flops_1", 2)]
    records += [record("flops_2", 4), record("flops_2", 4)]
    best = best_of_pools(records, Criterion("accuracy/top1"))
    assert best == [records[0], records[2], records[4]] and best[2] is records[4]  # on a tie the pool's own order
    assert best_of_pools(records, Criterion("accuracy/top1", "less")) == [records[0], records[1], records[4]]
    assert best_of_pools(records, Criterion("accuracy/top5")) == [records[0], records[1], records[4]]


def test_best_of_pools_is_chosen_on_the_images_for_that():
    a = record("flops_1", 90, selection_metrics={"accuracy/top1": 70})
    b = record("flops_1", 80, selection_metrics={"accuracy/top1": 75})
    assert best_of_pools([a, b], Criterion("accuracy/top1")) == [b]


@pytest.mark.parametrize("missing", [math.nan, math.inf, None])
def test_what_is_not_finite_is_never_the_best(missing):
    for rule in ("greater", "less"):
        criterion = Criterion("loss", rule)
        records = [make("flops_1", {"loss": value}) for value in (missing, -5.0, missing)]
        assert best_of_pools(records, criterion) == [records[1]]


def test_resolve():
    metrics = {"confusion_matrix/result": [[1, 0], [0, 1]], "accuracy/top1": 50.0, "accuracy/top5": 90.0}
    assert Criterion().resolve(metrics) == Criterion("accuracy/top1")
    assert Criterion("accuracy/top5", "less").resolve(metrics) == Criterion("accuracy/top5", "less")
    with pytest.raises(ConfigError, match=r"decided_by = 'accuracy/top2'.*numbers are \['accuracy/top1', 'acc"):
        Criterion("accuracy/top2").resolve(metrics)
    with pytest.raises(ConfigError, match="decided_by = 'confusion_matrix/result', which is not among those"):
        Criterion("confusion_matrix/result").resolve(metrics)
    with pytest.raises(ConfigError, match=r"no metric is a number: .* add a metric such as mmcls\.Accuracy"):
        Criterion().resolve({"confusion_matrix/result": [[1]]})


def test_rule():
    with pytest.raises(ConfigError, match=r"rule = 'higher' is not known; choose from \['greater', 'less'\]"):
        Criterion(rule="higher")
