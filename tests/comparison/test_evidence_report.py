from __future__ import annotations

import math
import statistics

import pytest

from pss_razor.comparison.evidence import Evidence, Pick, Run
from pss_razor.comparison.evidence_report import (
    draw_accuracies,
    draw_member_scores,
    format_evidence,
    methods_with_scores,
    summarise_members,
)
from pss_razor.core import ConfigError


def make_run(method, seed, scores, shift=0.0):
    """Two pools: (70, 72, 77) chosen 72, and (80, 81), chosen 81, all plus a shift."""
    accuracies = {"flops_2": [70 + shift, 72 + shift, 77 + shift], "flops_3": [80 + shift, 81 + shift]}
    picks = [
        Pick("largest", None, None, {"flops": 4.0}, 90.0),
        Pick("smallest", None, None, {"flops": 1.0}, 60.0),
        Pick("flops_2", "flops", 2, {"flops": 2.0}, 72 + shift),
        Pick("flops_3", "flops", 3, {"flops": 3.0}, 81 + shift),
    ]
    members = {
        name: {
            "resource": [1.0] * len(own),
            "accuracy": own,
            "selection_accuracy": own,
            "score": scores[: len(own)] if scores else [None] * len(own),
        }
        for name, own in accuracies.items()
    }
    return Run(method, seed, tuple(picks), members, {"steps": 100})


def make_evidence(rule="greater"):
    # flops_2 has tau 1/3 (one of three pairs is the wrong way round), flops_3 1
    runs = [
        make_run(m, seed, scores, seed) for seed in (0, 1) for m, scores in (("u", None), ("p", [-3.0, -1.0, -2.0]))
    ]
    units = {"flops": "MFLOPs"}
    about = {"device": "a CPU"}
    return Evidence("accuracy/top1", rule, 1000, units, "these", "those", tuple(runs), about=about)


def test_what_the_choice_gains():
    summary = summarise_members(make_evidence())
    own = summary["p"]
    means = [statistics.fmean([70, 72, 77]), 80.5]
    expected = {
        "members_mean": statistics.fmean(means),
        "pick_minus_members": statistics.fmean([72 - means[0], 81 - means[1]]),
        "best_minus_members": statistics.fmean([77 - means[0], 81 - means[1]]),
        "tau": (1 / 3 + 1) / 2,
    }
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        shift = 0.5 if name == "members_mean" else 0
        assert own[name]["mean"] == pytest.approx(value + shift), name
    assert own["members_mean"]["standard_error"] == pytest.approx(math.sqrt(0.5) / math.sqrt(2))
    assert own["tau"]["standard_error"] == pytest.approx(0)
    assert "tau" not in summary["u"] and summary["u"]["members_mean"] == own["members_mean"]


def test_where_less_is_better():
    own = summarise_members(make_evidence("less"))["p"]
    assert own["tau"]["mean"] == pytest.approx(-(1 / 3 + 1) / 2)
    assert own["best_minus_members"]["mean"] < 0


def test_tables():
    lines = format_evidence(make_evidence()).splitlines()
    assert lines[0].startswith(
        "top1, mean ± standard error over the seeds 0 1; each target's subnet is chosen on these"
    )
    assert "- device: a CPU" in lines and "| target | u | p |" in lines
    assert "| u | 77.25 ± 0.50 | -0.25 ± 0.00 | 2.25 ± 0.00 | - |" in lines
    assert "| p | 77.25 ± 0.50 | -0.25 ± 0.00 | 2.25 ± 0.00 | 0.67 ± 0.00 |" in lines
    assert any(line.startswith("| u - p | +0.00 ± 0.00, 2 targets |") for line in lines)


def test_pictures():
    evidence = make_evidence()
    assert methods_with_scores(evidence) == ["p"]
    assert draw_accuracies(evidence).startswith(b"\x89PNG")
    assert draw_member_scores(evidence, "p").startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"'u' has no scores; those that have are \['p'\]"):
        draw_member_scores(evidence, "u")
