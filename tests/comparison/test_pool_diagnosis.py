"""A diagnosis of pools against numbers from a made-up accuracy of every subnet."""

from __future__ import annotations

import itertools
import json
import statistics

import numpy as np
import pytest
from scipy.stats import rankdata

from pss_razor.comparison.pool_diagnosis import (
    choose_members,
    diagnose_pools,
    draw_pools,
    format_diagnosis,
    kendall_tau,
)
from pss_razor.core import Criterion, PrioritizedPool, Subnet

IMAGES = 10_000
CRITERION = Criterion("accuracy/top1")


def tau_by_hand(x, y):
    """Tau-b from its definition: concordant minus discordant pairs, over the pairs without ties."""
    signs = [(np.sign(a - c), np.sign(b - d)) for (a, b), (c, d) in itertools.combinations(zip(x, y, strict=True), 2)]
    pairs = np.array(signs, dtype=float)
    return (pairs[:, 0] * pairs[:, 1]).sum() / np.sqrt((pairs[:, 0] ** 2).sum() * (pairs[:, 1] ** 2).sum())


def test_kendall_tau():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 30).tolist(), rng.integers(0, 6, 30).tolist()
    assert kendall_tau(x, y) == pytest.approx(tau_by_hand(x, y))
    assert kendall_tau([*x, None, 3], [*y, 1, None]) == kendall_tau(x, y)
    assert kendall_tau([1, 2], [5, 5]) is None and kendall_tau([1], [2]) is None and kendall_tau([], []) is None


def test_members_are_spread_over_the_ranks():
    pool = PrioritizedPool(50)
    for number in range(11):
        pool.update(Subnet({"width": number}), -((number * 7) % 11) / 10, 1.0)
    ranked = sorted(pool, key=lambda entry: -entry.score)
    assert choose_members(pool, 11) == choose_members(pool, 99) == ranked
    assert choose_members(pool, 6) == ranked[::2]
    assert choose_members(pool, 2) == [ranked[0], ranked[-1]]


@pytest.fixture
def evaluator(tested):
    """Pools of at most six members, with visits at known steps; the pool of 0.7 MFLOPs is empty."""
    evaluator = tested.test_loop.build_evaluator_of_pools()
    sampler = evaluator.sampler
    rng = np.random.default_rng(1)
    for (metric, target), pool in sampler.pools.items():
        pool.load_records(sampler.space, [])
        pool.capacity = 6
        if target != 0.7:
            indices, resources = sampler.conditional_samplers[metric].draw_many(target, 40, rng)
            for step, (row, resource) in enumerate(zip(indices, resources, strict=True), start=1):
                pool.update(sampler.space.decode(row), -rng.random(), float(resource), step)
    sampler.step = 50
    return evaluator


def make_measure(evaluator):
    """Accuracies between 50 and 70 from a subnet's choices; the cross-entropy is another function of them."""
    measured = []

    def measure(subnets):
        indices = evaluator.algorithm.space.encode(subnets)
        assert len(np.unique(indices, axis=0)) == len(subnets)
        measured.append(len(subnets))
        scrambled = (indices * np.arange(3, 3 + indices.shape[1]) ** 2).sum(axis=1)
        return [
            {"accuracy/top1": 50 + float(s * 7 % 20), "loss/cross_entropy": 0.5 + float(s * 5 % 13)} for s in scrambled
        ]

    return measure, measured


def test_figures(evaluator):
    measure, measured = make_measure(evaluator)
    diagnosis = diagnose_pools(evaluator, measure, CRITERION, IMAGES, members=5, fresh=4)
    sampler, space = evaluator.sampler, evaluator.sampler.space
    assert len(measured) == 1 and diagnosis["step"] == 50 and diagnosis["images"] == IMAGES
    accuracy_of = {s: m["accuracy/top1"] for s in [space.largest, space.smallest] for m in measure([s])}
    assert diagnosis["largest"]["accuracy"] == accuracy_of[space.largest]
    assert diagnosis["smallest"]["resources"].keys() == {"flops", "params"}
    assert list(diagnosis["pools"]) == [f"{m}_{t}" for m, t in sampler.pools]
    for (metric, target), pool in sampler.pools.items():
        own = diagnosis["pools"][f"{metric}_{target}"]
        entries = choose_members(pool, 5)
        members, figures = own["members"], own["figures"]
        metrics = measure([entry.subnet for entry in entries]) if entries else []
        accuracies = [m["accuracy/top1"] for m in metrics]
        assert members == [
            dict(
                score=e.score,
                visits=e.visits,
                first_step=e.first_step,
                last_step=e.last_step,
                resource=pytest.approx(e.resource),
                accuracy=m["accuracy/top1"],
                cross_entropy=m["loss/cross_entropy"],
            )
            for e, m in zip(entries, metrics, strict=True)
        ]
        half = sampler.conditional_samplers[metric].constraint.step / 2 + 1e-9
        assert 1 <= len(own["fresh"]) <= 4 and all(abs(f["resource"] - target) <= half for f in own["fresh"])
        assert figures["fresh_mean"] == pytest.approx(statistics.fmean(f["accuracy"] for f in own["fresh"]))
        assert figures["fresh_best"] == max(f["accuracy"] for f in own["fresh"][: len(members) or None])
        assert figures["entries"] == len(pool)
        if not entries:
            assert figures["pick"] is figures["members_best"] is figures["tau_score_accuracy"] is None
            assert figures["pick_minus_fresh"] is None and own["dominated"] is None
            continue
        assert (figures["visits"], figures["insertions"] - figures["drops"]) == (40, len(pool))
        assert figures["pick"] == accuracies[0] and figures["members_best"] == max(accuracies)
        assert figures["pick_minus_members"] == pytest.approx(accuracies[0] - statistics.fmean(accuracies))
        assert figures["pick_minus_fresh"] == pytest.approx(accuracies[0] - figures["fresh_mean"])
        assert figures["steps_since_visit"] == pytest.approx(statistics.fmean(50 - e.last_step for e in entries))
        assert figures["steps_in_pool"] == pytest.approx(statistics.fmean(50 - e.first_step for e in entries))
        for key, x, y in [
            ("tau_score_accuracy", [e.score for e in entries], accuracies),
            ("tau_score_loss", [e.score for e in entries], [-m["loss/cross_entropy"] for m in metrics]),
            ("tau_last_step_accuracy", [e.last_step for e in entries], accuracies),
        ]:
            if len(set(x)) > 1 and len(set(y)) > 1:
                assert figures[key] == pytest.approx(tau_by_hand(x, y)), key
    means = diagnosis["means"]["pick_minus_fresh"]
    values = [o["figures"]["pick_minus_fresh"] for o in diagnosis["pools"].values() if o["members"]]
    assert means["pools"] == len(values) == len(sampler.pools) - 1
    assert means["mean"] == pytest.approx(np.mean(values))
    assert means["standard_error"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))
    assert json.loads(json.dumps(diagnosis)) == diagnosis
    assert draw_pools(diagnosis).startswith(b"\x89PNG")


def test_tau_is_one_where_the_score_is_the_accuracy(evaluator):
    ranks = {}
    for pool in evaluator.sampler.pools.values():
        entries = list(pool)
        for entry, rank in zip(entries, rankdata([e.score for e in entries]) if entries else [], strict=True):
            ranks.setdefault(entry.subnet, rank)

    def measure(subnets):
        return [{"accuracy/top1": 50.0 + ranks.get(s, 0.0), "loss/cross_entropy": ranks.get(s, 0.0)} for s in subnets]

    figures = diagnose_pools(evaluator, measure, CRITERION, IMAGES)["pools"]["flops_0.3"]["figures"]
    assert figures["tau_score_accuracy"] == pytest.approx(1) and figures["tau_score_loss"] == pytest.approx(-1)
    assert figures["pick"] == figures["members_best"]
    # Where less is better, the same accuracies are the worst.
    figures = diagnose_pools(evaluator, measure, Criterion("accuracy/top1", "less"), IMAGES)["pools"]["flops_0.3"]
    assert figures["figures"]["tau_score_accuracy"] == pytest.approx(-1)
    assert figures["figures"]["members_best"] < figures["figures"]["pick"]


def test_dominated_by_a_cheaper_subnet(evaluator):
    space, pools = evaluator.sampler.space, evaluator.sampler.pools
    best = {target: pools["flops", target].best(1)[0].subnet for target in (0.3, 0.5)}
    accuracies = {space.smallest: 70.0, best[0.3]: 75.0, best[0.5]: 60.0}

    def measure(subnets):
        return [{"accuracy/top1": accuracies.get(s, 76.0), "loss/cross_entropy": 1.0} for s in subnets]

    diagnosis = diagnose_pools(evaluator, measure, CRITERION, IMAGES)
    dominated = {name: own["dominated"] for name, own in diagnosis["pools"].items()}
    assert dominated["flops_0.3"] is None
    error = 100 * np.sqrt((0.75 * 0.25 + 0.6 * 0.4) / IMAGES)
    assert dominated["flops_0.5"] == {"by": "flops_0.3", "difference": 15.0, "standard_error": pytest.approx(error)}
    assert "flops_0.5 by flops_0.3 (+15.00 ± 0.65)" in format_diagnosis(diagnosis)
    # On few images 15 points say nothing.
    few = diagnose_pools(evaluator, measure, CRITERION, 10)
    assert few["pools"]["flops_0.5"]["dominated"] is None


def test_a_checkpoint_without_steps(evaluator):
    evaluator.sampler.step = 0
    for pool in evaluator.sampler.pools.values():
        for entry in pool:
            entry.first_step = entry.last_step = None
    diagnosis = diagnose_pools(evaluator, make_measure(evaluator)[0], CRITERION, IMAGES)
    figures = diagnosis["pools"]["flops_0.3"]["figures"]
    unknown = ("visits", "insertions", "drops", "steps_in_pool", "steps_since_visit", "tau_last_step_accuracy")
    assert [figures[key] for key in unknown] == [None] * 6 and figures["visits_a_member"] >= 1
    assert "| 0.3 MFLOPs | 6 | - | - | - |" in format_diagnosis(diagnosis)
    assert draw_pools(diagnosis).startswith(b"\x89PNG")


def test_table(evaluator):
    measure, _ = make_measure(evaluator)
    diagnosis = diagnose_pools(evaluator, measure, CRITERION, IMAGES, members=5, fresh=4)
    lines = format_diagnosis(diagnosis).splitlines()
    own = diagnosis["pools"]["flops_0.3"]["figures"]
    row = next(line for line in lines if line.startswith("| 0.3 MFLOPs | ") and "." in line.split("|")[2])
    assert row.split(" | ")[1:4] == [f"{own[key]:.2f}" for key in ("pick", "members_mean", "members_best")]
    assert any(line.startswith("| 0.7 MFLOPs | - | - | - |") for line in lines)
    mean = diagnosis["means"]["tau_score_accuracy"]
    assert f"{mean['mean']:.2f} ± {mean['standard_error']:.2f}" in lines[-1]
