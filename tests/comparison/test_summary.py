"""Figures of a comparison against hand-made results."""

from __future__ import annotations

import json
import math

import pytest

from pss_razor.comparison.summary import (
    check_comparable,
    format_comparison,
    name_methods,
    summarise,
    write_comparison,
)
from pss_razor.core import ConfigError

from mmengine.config import Config


def result(name, accuracy, metric=None, target=None, resource=1.0):
    return {
        "name": name,
        "metric": metric,
        "target": target,
        "resources": {"flops": resource, "params": 9.0},
        "metrics": {"accuracy/top1": accuracy, "accuracy/top5": 100.0},
    }


@pytest.fixture
def runs(tmp_path):
    """Two methods with two seeds; ``b`` reaches 3 only, and with one seed nothing of params."""
    contents = {
        ("a", 0): [(2, 90.0, 2.1), (2, 92.0, 1.9), (3, 95.0, 3.0), (10, 80.0, 10.0)],
        ("a", 7): [(2, 94.0, 2.0), (3, 96.0, 3.1), (10, 81.0, 10.0)],
        ("b", 0): [(3, 91.0, 2.9)],
        ("b", 7): [(3, 93.0, 3.0), (10, 60.0, 10.2)],
    }
    paths = {}
    for (method, seed), rows in contents.items():
        subnets = [result("largest", 98.0 + seed / 10), result("smallest", 70.0)]
        subnets += [result(f"flops_{t}", accuracy, "flops", t, resource) for t, accuracy, resource in rows]
        path = tmp_path / f"{method}_{seed}.json"
        units = {"flops": "MFLOPs", "params": "M params"}
        document = {"format": 1, "units": units, "dataset_size": 100, "subnets": subnets}
        if method == "a":
            document["training"] = {"steps": 10, "gmacs": 1000.0 + seed, "images": 640, "device": "cpu"}
        path.write_text(json.dumps(document))
        paths.setdefault(method, {})[seed] = path
    return paths


def test_means_and_standard_errors(runs):
    summary = summarise(runs)
    assert summary["accuracy"] == "accuracy/top1" and summary["common_targets"] == ["flops_3"]
    assert summary["targets"] == [["flops", 2], ["flops", 3], ["flops", 10]]  # by number
    a, b = summary["methods"]["a"], summary["methods"]["b"]
    # the better of a pool's two, and its own resource
    assert a["flops_2"] == {
        "mean": 93.0,
        "standard_error": pytest.approx(math.sqrt(((92 - 93) ** 2 + (94 - 93) ** 2) / 1 / 2)),
        "values": {"0": 92.0, "7": 94.0},
        "resources": {"0": 1.9, "7": 2.0},
    }
    assert "flops_2" not in b and b["flops_3"]["mean"] == 92.0
    assert b["flops_10"]["values"] == {"7": 60.0} and b["flops_10"]["standard_error"] is None
    assert a["largest"]["mean"] == pytest.approx(98.35) and a["smallest"]["standard_error"] == 0
    assert a["mean over targets"]["values"] == {"0": 89.0, "7": pytest.approx(271 / 3)}
    assert a["mean over common targets"]["values"] == {"0": 95.0, "7": 96.0}
    assert b["mean over common targets"]["mean"] == 92.0


def test_mean_over_log_resource(runs):
    a, b = (summarise(runs)["methods"][method] for method in "ab")
    # by hand, of the picks (1.9, 92), (3, 95), (10, 80) and (2, 94), (3.1, 96), (10, 81)
    lengths = [(math.log(3 / 1.9), math.log(10 / 3)), (math.log(3.1 / 2), math.log(10 / 3.1))]
    heights = [(93.5, 87.5), (95.0, 88.5)]
    by_hand = [(x * h + y * k) / (x + y) for (x, y), (h, k) in zip(lengths, heights, strict=True)]
    row = a["mean over log(flops)"]
    assert row["values"] == {"0": pytest.approx(by_hand[0]), "7": pytest.approx(by_hand[1])}
    assert "mean over log(flops)" not in b  # one point is no range


def test_paired_differences(runs):
    (pair,) = summarise(runs)["pairs"]
    assert (pair["first"], pair["second"], pair["common_targets"]) == ("a", "b", ["flops_3"])
    rows = pair["rows"]
    assert "flops_2" not in rows and rows["flops_3"]["values"] == {"0": 4.0, "7": 3.0}
    assert rows["flops_3"]["mean"] == 3.5 and rows["flops_3"]["standard_error"] == pytest.approx(0.5)
    assert rows["flops_3"]["ratio"] == pytest.approx(7)
    assert rows["flops_10"]["values"] == {"7": 21.0} and rows["flops_10"]["ratio"] is None
    assert rows["mean over common targets"] == rows["flops_3"]
    assert rows["largest"]["mean"] == 0 and rows["largest"]["ratio"] is None
    # Of seed 7 both cover 3 to 10: a starts between (2, 94) and (3.1, 96), b ends between (3, 93) and (10.2, 60).
    start = 94 + 2 * math.log(3 / 2) / math.log(3.1 / 2)
    end = 93 - 33 * math.log(10 / 3) / math.log(10.2 / 3)
    first = (math.log(3.1 / 3) * (start + 96) / 2 + math.log(10 / 3.1) * (96 + 81) / 2) / math.log(10 / 3)
    expected = first - (93 + end) / 2
    assert rows["mean over log(flops)"]["values"] == {"7": pytest.approx(expected)}


def test_dominated_targets(runs):
    summary = summarise(runs)
    # a at 10: 3 is better by 15 and 15, 2 by 12 and 13. b at 3 has the smallest below it, at 10 one seed of 100 images.
    assert summary["dominated"]["a"] == {"flops_10": {"by": "flops_3", "difference": 15.0, "standard_error": 0.0}}
    error = 100 * math.sqrt((0.93 * 0.07 + 0.6 * 0.4) / 100)
    assert summary["dominated"]["b"] == {
        "flops_10": {"by": "flops_3", "difference": 33.0, "standard_error": pytest.approx(error)}
    }


def test_a_dearer_subnet_dominates_nothing(runs, tmp_path):
    path = tmp_path / "one.json"
    subnets = [result("largest", 99.0), result("smallest", 50.0), result("flops_3", 60.0, "flops", 3, 3.0)]
    subnets += [result("params_1", 99.0, "params", 1, 1.0), result("flops_4", 90.0, "flops", 4, 4.0)]
    path.write_text(
        json.dumps({"format": 1, "units": {"flops": "", "params": ""}, "dataset_size": 10**6, "subnets": subnets})
    )
    assert summarise({"m": {0: path}})["dominated"] == {"m": {}}


def test_subnets_trained_alone(runs):
    summary = summarise(runs, {"flops_3": {0: 96.0, 7: 95.5}, "flops_10": {7: 80.0}, "flops_99": {0: 1.0}})
    assert summary["common_targets"] == ["flops_3"]
    assert summary["methods"]["trained alone"].keys() == {"flops_3", "flops_10"}
    pairs = {(pair["first"], pair["second"]): pair for pair in summary["pairs"]}
    pair = pairs["a", "trained alone"]
    assert pair["rows"]["flops_3"]["values"] == {"0": -1.0, "7": 0.5}
    assert pair["rows"]["mean over common targets"] == pair["rows"]["flops_3"]
    assert pair["rows"]["flops_10"]["values"] == {"7": 1.0} and pair["common_targets"] == ["flops_3"]
    assert pair["rows"].keys() == {"flops_3", "flops_10", "mean over common targets"}
    assert "| target | a | b | trained alone |" in format_comparison(summary)
    assert "| a - trained alone | -0.25 ± 0.75 (-0.3), 1 targets | - | - |" in format_comparison(summary)


def test_a_mean_of_trainings(runs):
    summary = summarise(runs)
    assert summary["training"] == {"a": {"steps": 10, "gmacs": 1003.5, "images": 640}, "b": {}}
    assert "| a | 10 | 1,004 | 640 |\n| b | - | - | - |" in format_comparison(summary)


def test_table(runs):
    text = format_comparison(summarise(runs))
    lines = text.split("\n\n")[0].splitlines()
    assert "| a - b | +3.50 ± 0.50 (7.0), 1 targets |" in text
    assert lines == [
        "| target | a | b |",
        "| --- | --- | --- |",
        "| 2 MFLOPs (flops) | 93.00 ± 1.00 | - |",
        "| 3 MFLOPs (flops) | 95.50 ± 0.50 | 92.00 ± 1.00 |",
        "| 10 MFLOPs (flops) | 80.50 ± 0.50 ▼ | 60.00 (1 of 2 seeds) ▼ |",
        "| largest | 98.35 ± 0.35 | 98.35 ± 0.35 |",
        "| smallest | 70.00 ± 0.00 | 70.00 ± 0.00 |",
        "| mean over the method's own targets | 89.67 ± 0.67 | 83.75 ± 7.25 |",
        "| mean over the 1 targets that all methods reach | 95.50 ± 0.50 | 92.00 ± 1.00 |",
        "| mean over the method's own range of log(flops) | 89.71 ± 0.56 | - |",
        "| targets dominated by a cheaper subnet (▼) | 1 of 3 | 1 of 2 |",
    ]


def test_files(runs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "pss_razor.comparison.summary.draw_method_comparison", lambda *args: drawn.append(args) or b"\x89PNG"
    )
    summary = summarise({name: {0: seeds[0]} for name, seeds in runs.items()})
    written = write_comparison(summary, tmp_path, "a heading")
    assert [path.name for path in written] == ["comparison.json", "comparison.md", "comparison.png"]
    assert json.loads(written[0].read_text()) == summary
    assert written[1].read_text().startswith("a heading\n\n| target | a | b |\n")
    ((curves, units, accuracy),) = drawn
    assert curves == {"flops": {"a": [(1.9, 92.0, 0.0), (3.0, 95.0, 0.0), (10.0, 80.0, 0.0)], "b": [(2.9, 91.0, 0.0)]}}
    assert units["flops"] == "MFLOPs" and accuracy == "accuracy/top1"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["c/pss_mbv2_flops.py", "d/usnet_mbv2_flops.py"], ["pss", "usnet"]),
        (["pss_mbv2_flops.py", "pss_mbv2_cpu.py"], ["pss_mbv2_flops", "pss_mbv2_cpu"]),
        (["pss_a.py"], ["pss_a"]),
        (["a.py", "b_a.py"], ["a", "b_a"]),
    ],
)
def test_names(files, names):
    assert name_methods(files) == names


def test_names_twice():
    with pytest.raises(ConfigError, match="two configs are called 'a'"):
        name_methods(["x/a.py", "y/a.py"])


CONFIG = dict(
    model=dict(constraints=[dict(metric="flops", first=2, last=6)], architecture=dict(resolutions=[16, 32])),
    train_dataloader=dict(batch_size=64, dataset=dict(type="Digits")),
    train_cfg=dict(max_epochs=24),
    default_hooks=dict(subnet_sampler=dict(type="PrioritizedPoolSamplerHook")),
)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.constraints", [dict(metric="flops", first=2, last=5)], ["model.constraints.0.last is 6", "5 in the"]),
        ("train_dataloader.dataset.type", "ImageFolder", ["train_dataloader.dataset.type is 'Digits'", "ImageFolder"]),
        ("train_cfg.max_epochs", 12, ["train_cfg.max_epochs is 24", "12"]),
        ("test_cfg", dict(top_k=3), ["test_cfg is None"]),
    ],
)
def test_configs_that_cannot_be_compared(key, value, words):
    other = Config(CONFIG)
    other.merge_from_dict({key: value})
    if isinstance(value, list):
        other.model.constraints = value
    with pytest.raises(ConfigError, match="a and b cannot be compared") as error:
        check_comparable({"a": Config(CONFIG), "b": other})
    assert all(word in str(error.value) for word in words)


def test_samplers_and_resolutions_may_differ():
    other = Config(CONFIG)
    other.model.architecture.resolutions = [32]
    other.default_hooks = dict(subnet_sampler=dict(type="BaselineSamplerHook", method="usnet"))
    check_comparable({"a": Config(CONFIG), "b": other})


def test_targets_that_are_spread_over_other_resources():
    """US-Net has one resolution; its smallest and largest subnet have other costs."""
    config, other = Config(CONFIG), Config(CONFIG)
    for own, resolutions in ((config, [16, 32]), (other, [32])):
        own.model.constraints = [dict(metric="flops", num_targets=4)]
        own.model.architecture.resolutions = resolutions
    with pytest.raises(ConfigError, match="num_targets spreads the targets over the resources of each"):
        check_comparable({"a": config, "b": other})
    other.model.architecture.resolutions = [16, 32]
    check_comparable({"a": config, "b": other})
