"""tools/evidence_report.py from results of tools/test.py to tables."""

from __future__ import annotations

import json
import shutil

import pytest


def fails(done, *words):
    assert done.code == 1 and "Traceback" not in done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("error:") and all(word in line for word in words), line


@pytest.fixture
def results(call, tiny, trained, tmp_path):
    """Two methods with the seeds 0 and 3, all with the same results."""
    done = call("test.py", tiny, trained, "--out", tmp_path / "first" / "seed0" / "pool_results.json")
    assert done.code == 0, done.err[-2000:]
    shutil.copytree(tmp_path / "first" / "seed0", tmp_path / "first" / "seed3")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    return tmp_path


def test_from_results_to_tables(results, run_tool):
    evidence, methods = results / "new" / "tiny.json", [f"{m}={results / m}" for m in ("first", "second")]
    for seed, accuracy in ((0, 50.0), (3, 52.0)):  # what tools/train_alone.py writes
        alone = {"format": 1, "seed": seed, "subnets": [{"name": "flops_0.5", "alone": accuracy}]}
        (results / f"alone{seed}.json").write_text(json.dumps(alone))
    done = run_tool(
        "evidence_report.py",
        "collect",
        *methods,
        "--out",
        evidence,
        "--alone",
        results / "alone0.json",
        results / "alone3.json",
        "--about",
        "on=a CPU",
    )
    assert done.code == 0, done.err
    document = json.loads((results / "first" / "seed0" / "pool_results.json").read_text())
    kept = json.loads(evidence.read_text())
    assert [(run["method"], run["seed"]) for run in kept["runs"]] == [
        (m, s) for m in ("first", "second") for s in (0, 3)
    ]
    members = [own for own in document["subnets"] if own["name"] == "flops_0.5"]
    columns = kept["runs"][0]["members"]["flops_0.5"]
    assert columns["accuracy"] == [own["metrics"]["accuracy/top1"] for own in members]
    assert columns["score"] == [own["score"] for own in members]
    done = run_tool("evidence_report.py", "report", evidence, "--out-dir", results / "report")
    assert done.code == 0, done.err
    text = (results / "report" / "tiny.md").read_text()
    assert (
        "| target | first | second | trained alone |" in text and "| 51.00 ± 1.00 |" in text and "- on: a CPU" in text
    )
    for name in ("accuracy", "scores"):
        assert (results / "report" / f"tiny_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_bad_input(results, run_tool):
    first, out = f"first={results / 'first'}", results / "out.json"

    def collect(*args):
        return run_tool("evidence_report.py", "collect", *args)

    fails(collect(first, "--out", results / "out.txt"), "end the name with .json")
    fails(collect(first, first, "--out", out), "each name once")
    fails(collect("first", "--out", out), "collect first: write NAME=VALUE")
    fails(collect(f"none={results / 'none'}", "--out", out), "no results of any seed")
    fails(collect(first, "--seeds", 0, 5, "--out", out), "no results of seeds [5]", "it has seeds [0, 3]")
    (results / "bad.json").write_text('{"flops_2": 3}')
    fails(collect(first, "--alone", results / "bad.json", "--out", out), "is no alone.json of tools/train_alone.py")
    (results / "twice.json").write_text('{"seed": 0, "subnets": [{"name": "flops_2", "alone": 3}]}')
    fails(
        collect(first, "--alone", *[results / "twice.json"] * 2, "--out", out), "flops_2 of seed 0 is in another file"
    )
    assert not out.exists()
    assert collect(first, "--out", out).code == 0
    report = ["evidence_report.py", "report", out, "--out-dir", results / "report"]
    fails(run_tool(*report, "--scores-of", "x"), "'x' has no scores", "['first']")
    fails(run_tool("evidence_report.py", "report", results / "bad.json", "--out-dir", results), "is not a file of")


def test_report_of_what_is_in_the_repository(run_tool, tmp_path, request):
    """`make evidence-report` makes the tables that are there."""
    folder = request.config.rootpath / "docs" / "evidence"
    files = sorted(folder.glob("*.json"))
    done = run_tool("evidence_report.py", "report", *files, "--out-dir", tmp_path)
    assert done.code == 0, done.err
    for file in files:
        assert (tmp_path / f"{file.stem}.md").read_text() == (folder / f"{file.stem}.md").read_text()
