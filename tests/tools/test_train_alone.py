"""tools/train_alone.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ALONE = """model = dict(type="SubnetAlone", subnet="largest")
default_hooks = dict(subnet_sampler=dict(_delete_=True, type="BaselineSamplerHook", method="uniform"))
"""


def fails(done, *words):
    assert done.code == 1 and "Traceback" not in done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("error:") and all(word in line for word in words), line


@pytest.fixture(scope="module")
def results(trained, tiny, tmp_path_factory):
    from pss_razor.engine.launch import build_runner, load_config

    work_dir = tmp_path_factory.mktemp("tested")
    options = ["experiment_name=tested_to_train_alone", f"load_from={trained}"]
    build_runner(load_config(tiny, options, "none", str(work_dir))).test()
    return work_dir / "pool_results.json"


@pytest.fixture
def config(write_config):
    return write_config(ALONE, "alone_tiny.py")


def test_help_answers_without_importing_torch(root):
    program = f"""
import runpy, sys
sys.argv = ["train_alone.py", "--help"]
try:
    runpy.run_path({str(root / "tools" / "train_alone.py")!r}, run_name="__main__")
finally:
    slow = [name for name in sys.modules if name.partition(".")[0] in ("torch", "mmengine", "numpy")]
    assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pools", "flops_99"], ["--pools flops_99", "has largest, smallest, flops_"]),
        (["--jobs", 0], ["--jobs 0"]),
        (["--cfg-options", "model.subnet=smallest"], ["the subnets by --pools"]),
        (["--cfg-options", "randomness.seed=1"], ["the seed by --seed"]),
    ],
)
def test_bad_options(run_tool, results, config, tmp_path, options, words):
    fails(run_tool("train_alone.py", results, config, "--out-dir", tmp_path / "out", *options), *words)
    assert not (tmp_path / "out").exists()


def test_config_of_something_else(run_tool, results, tiny, tmp_path):
    fails(run_tool("train_alone.py", results, tiny, "--out-dir", tmp_path / "out"), "must be a SubnetAlone", "PSS")


def test_results_are_missing(run_tool, config, tmp_path):
    fails(run_tool("train_alone.py", tmp_path / "none.json", config, "--out-dir", tmp_path / "out"), "does not exist")


@pytest.mark.slow
def test_trains_the_picks_and_continues(run_tool, results, config, tmp_path):
    out = tmp_path / "out"
    fast = ["--cfg-options", "train_cfg.max_epochs=1", "param_scheduler.end=1"]

    def train(*options):
        return run_tool("train_alone.py", results, config, "--out-dir", out, *options)

    done = train("--pools", "smallest", "flops_0.5", *fast)
    assert done.code == 0, done.err[-2000:]
    checkpoints = {path: path.stat().st_mtime_ns for path in out.glob("*/seed0/*.pth")}
    assert len(checkpoints) == 2
    document = json.loads(results.read_text())
    picks = {record["name"]: record for record in document["subnets"] if record["rank"] in (0, None)}
    summary = json.loads((out / "alone.json").read_text())
    assert [own["name"] for own in summary["subnets"]] == ["smallest", "flops_0.5"]
    for own in summary["subnets"]:
        record = json.loads((out / own["name"] / "seed0" / "pool_results.json").read_text())["subnets"][0]
        assert own["alone"] == record["metrics"]["accuracy/top1"]
        assert own["choices"] == {**record["channels"], "resolution": record["resolution"]}
        training = {"images": 96, "steps": 6, "gmacs": pytest.approx(3 * 96 * own["resources"]["flops"] / 1e3)}
        assert own["training"] == training
    smallest = summary["subnets"][0]
    assert smallest["resources"] == pytest.approx(picks["smallest"]["resources"])
    assert smallest["in_supernet"] == picks["smallest"]["metrics"]["accuracy/top1"]

    (out / "smallest" / "seed0" / "pool_results.json").unlink()  # lost on the way
    before = smallest["alone"]
    done = train("--pools", "smallest", "flops_0.5", *fast)
    assert done.code == 0, done.err[-2000:]
    assert {path: path.stat().st_mtime_ns for path in checkpoints} == checkpoints, "nothing is trained twice"
    assert json.loads((out / "alone.json").read_text())["subnets"][0]["alone"] == before
    fails(train("--pools", "smallest", "--cfg-options", "train_cfg.max_epochs=2"), "other settings", "--out-dir")
