"""Raw results of a comparison as one file."""

from __future__ import annotations

import json

import pytest

from pss_razor.comparison.evidence import collect_evidence, read_evidence
from pss_razor.comparison.summary import summarise, summarise_evidence
from pss_razor.core import ConfigError


def write_results(path, accuracies, images=50, metric="accuracy/top1"):
    """Pools of 2 and 3 MFLOPs, with as many members as there are accuracies for each."""
    subnets = [
        {"name": name, "metric": None, "target": None, "resources": {"flops": resource}, "metrics": {metric: accuracy}}
        for name, resource, accuracy in (("largest", 4.0, 90.0), ("smallest", 1.0, 60.0))
    ]
    for target, own in accuracies.items():
        for rank, (selection, test) in enumerate(own):
            subnets.append(
                {
                    "name": f"flops_{target}",
                    "metric": "flops",
                    "target": target,
                    "rank": rank,
                    "score": -0.5 - rank,
                    "resources": {"flops": target + rank / 10},
                    "metrics": {metric: test},
                    "selection_metrics": {metric: selection},
                }
            )
    training = {"steps": 100, "images": 6400, "gmacs": 12.5}
    units = {"flops": "MFLOPs"}
    document = {"format": 1, "units": units, "dataset_size": images, "training": training, "subnets": subnets}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def runs(tmp_path):
    return {
        "a": {
            0: write_results(tmp_path / "a0", {2: [(70.0, 69.0), (72.0, 68.0)], 3: [(80.0, 81.0)]}),
            1: write_results(tmp_path / "a1", {2: [(71.0, 70.0)], 3: [(80.0, 82.0), (79.0, 90.0)]}),
        },
        "b": {
            0: write_results(tmp_path / "b0", {3: [(75.0, 76.0)]}),
            1: write_results(tmp_path / "b1", {3: [(7.0, 8.0)]}),
        },
    }


def test_what_is_kept(runs):
    evidence = collect_evidence(runs, about={"device": "a CPU"})
    assert (evidence.accuracy, evidence.images, evidence.methods) == ("accuracy/top1", 50, ["a", "b"])
    picks = evidence.of("a")
    # chosen by the selection images, reported with the others
    assert [(p.name, p.accuracy, p.selection_accuracy, p.score) for p in picks[0].values()] == [
        ("largest", 90.0, None, None),
        ("smallest", 60.0, None, None),
        ("flops_2", 68.0, 72.0, -1.5),
        ("flops_3", 81.0, 80.0, -0.5),
    ]
    assert picks[0]["flops_2"].resources == {"flops": 2.1} and picks[1]["flops_3"].accuracy == 82.0
    assert evidence.runs[0].members["flops_2"] == {
        "resource": [2.0, 2.1],
        "accuracy": [69.0, 68.0],
        "selection_accuracy": [70.0, 72.0],
        "score": [-0.5, -1.5],
    }
    assert evidence.runs[0].training == {"steps": 100, "images": 6400, "gmacs": 12.5}


def test_a_file_gives_the_same_statistics(runs, tmp_path):
    alone = {"flops_3": {0: 85.0, 1: 86.0}}
    evidence = collect_evidence(runs, alone, {"commands": ["a", "b"]})
    path = tmp_path / "evidence.json"
    path.write_bytes(evidence.to_json())
    assert read_evidence(path) == evidence
    assert summarise_evidence(read_evidence(path)) == summarise(runs, alone)
    assert sum(line.startswith(' {"method"') for line in path.read_text().splitlines()) == 4  # a line a run


def test_results_that_cannot_be_compared(runs, tmp_path):
    other = write_results(tmp_path / "c0", {3: [(1.0, 1.0)]}, images=51)
    with pytest.raises(ConfigError, match=r"a0 and .*c0 cannot be compared: their numbers of images are 50 and 51"):
        collect_evidence({**runs, "c": {0: other}})
    write_results(other, {3: [(1.0, 1.0)]}, metric="accuracy/top5")
    with pytest.raises(ConfigError, match="deciding metrics"):
        collect_evidence({**runs, "c": {0: other}})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d.update(format=2), "is not a file of"),
        (lambda d: d.update(images=0), "damaged.*on 0 images"),
        (lambda d: d.update(runs=[]), "damaged.*0 runs"),
        (lambda d: d["runs"].append(d["runs"][0]), "damaged.*seed 0 of a is no integer, or there twice"),
        (lambda d: d.update(about="text"), "damaged"),
        (lambda d: d.update(alone={"flops_2": {}}), "damaged.*has no accuracy"),
        (lambda d: d.update(extra=1), "damaged.*extra"),
        (lambda d: d["runs"][0].pop("seed"), "damaged.*seed"),
        (lambda d: d["runs"][0]["picks"][2].update(accuracy=None), "damaged.*accuracy of flops_2: None"),
        (lambda d: d["runs"][0]["picks"][2].update(resources={"flops": 0}), "damaged.*resource 0 of flops_2"),
        (lambda d: d["runs"][0]["picks"][2].update(metric="x"), "damaged.*'x'"),
        (lambda d: d["runs"][0]["members"]["flops_2"]["score"].pop(), "damaged.*members of flops_2: .*of one length"),
        (lambda d: d["runs"][0]["training"].update(steps="1"), "damaged.*training, steps: '1'"),
        (lambda d: d.update(alone={"flops_2": {"x": 1}}), "damaged"),
    ],
)
def test_a_damaged_file(runs, tmp_path, damage, words):
    document = json.loads(collect_evidence(runs).to_json())
    damage(document)
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=words):
        read_evidence(path)


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_evidence(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("not JSON")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_evidence(tmp_path / "text.json")
