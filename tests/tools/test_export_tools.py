"""tools/export_subnets.py and tools/benchmark_subnets.py, as a shell calls them."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def fails(done, *words):
    """One line on stderr, and nothing evaluated."""
    assert done.code == 1 and "Traceback" not in done.err and "BN calibration" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error:")
    for word in words:
        assert word in last


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--targets", "latency_cpu=3"], ["no pools of 'latency_cpu'", "flops"]),
        (["--targets", "flops=0.6"], ["flops has no pool for 0.6", "0.3, 0.5, 0.7"]),
        (["--targets", "flops=0.5,x"], ["'x' is no number"]),
        (["--targets", "flops"], ["'' is no number", "flops=0.3"]),
        (["--formats", "torch,tflite"], ["unknown format 'tflite'", "'pt2'"]),
        (["--formats", "bundle", "--no-evaluate"], ["--no-evaluate", "accuracy"]),
        (["--calibrate", "0"], ["--calibrate 0", "at least 1"]),
    ],
)
def test_bad_options(call, tiny, trained, tmp_path, options, words):
    done = call("export_subnets.py", tiny, trained, "--out-dir", tmp_path / "export", *options)
    fails(done, *words)
    assert not (tmp_path / "export").exists()


def test_without_the_onnx_packages(call, tiny, trained, tmp_path, monkeypatch):
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "onnxscript" else find_spec(name, *args)
    )
    done = call("export_subnets.py", tiny, trained, "--out-dir", tmp_path / "export", "--formats", "torch,onnx")
    fails(done, "ONNX needs onnxscript", "pss_razor[onnx]")


@pytest.mark.slow
def test_export_twice_and_benchmark(call, tiny, trained, tmp_path, monkeypatch, capfd):
    out = tmp_path / "export"
    options = ["--out-dir", out, "--targets", "flops=0.3,0.7", "--formats", "torch,bundle", "--calibrate", "1"]
    done = call("export_subnets.py", tiny, trained, *options)
    assert done.code == 0, done.err
    assert "exported 2 subnets" in done.out and "BN calibration" in done.err
    first = json.loads((out / "manifest.json").read_text())
    assert [entry["target"] for entry in first["subnets"]] == [0.3, 0.7]
    assert first["source"]["calibration_batches"] == 1
    again = call("export_subnets.py", tiny, trained, *options)
    assert again.code == 0 and "BN calibration" not in again.err
    assert json.loads((out / "manifest.json").read_text())["subnets"] == first["subnets"]

    monkeypatch.setattr(sys, "argv", ["benchmark_subnets.py", str(out), "--rounds", "2"])
    runpy.run_path(str(TOOLS / "benchmark_subnets.py"), run_name="__main__")
    rows = json.loads((out / "benchmark.json").read_text())["subnets"]
    assert [row["flops"] for row in rows] == [entry["resource"] for entry in first["subnets"]]
    for row in rows:
        assert row["torch_us"] > 0 and row["bundle_us"] > 0 and row["onnx_us"] is None
        files = ("model.json", "model.safetensors")
        assert row["torch_bytes"] == sum((out / row["name"] / file).stat().st_size for file in files)
    assert (out / "benchmark.md").read_text() in capfd.readouterr().out
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--rounds", "--threads"])
def test_bad_benchmark_options(monkeypatch, tmp_path, option):
    monkeypatch.setattr(sys, "argv", ["benchmark_subnets.py", str(tmp_path), option, "0"])
    with pytest.raises(SystemExit, match=f"{option} 0 must be at least 1"):
        runpy.run_path(str(TOOLS / "benchmark_subnets.py"), run_name="__main__")


def test_benchmark_of_no_export(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["benchmark_subnets.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"manifest\.json does not exist"):
        runpy.run_path(str(TOOLS / "benchmark_subnets.py"), run_name="__main__")
