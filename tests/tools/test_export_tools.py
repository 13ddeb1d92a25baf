"""tools/export_subnets.py and tools/benchmark_subnets.py, as a shell calls them."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
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
        (["--jobs", "0"], ["--jobs 0", "at least 1"]),
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


@pytest.mark.slow
def test_an_interrupt_ends_all_processes_and_the_next_run_continues(tiny, trained, tmp_path, root, environment):
    """Ctrl-C while two processes write."""
    out = tmp_path / "export"
    options = [
        "--out-dir",
        out,
        "--no-evaluate",
        "--formats",
        "torch,pt2",
        "--jobs",
        "2",
        "--work-dir",
        tmp_path / "work",
    ]
    command = [sys.executable, str(root / "tools" / "export_subnets.py"), tiny, str(trained), *map(str, options)]
    running = subprocess.Popen(
        command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("*/export.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode != 0 and "KeyboardInterrupt" in err and err.count("Traceback (most recent") == 1
    with pytest.raises(ProcessLookupError):  # none of its session is left
        while True:
            os.killpg(running.pid, 0)
            assert time.monotonic() < deadline + 60
            time.sleep(0.1)
    assert not list(out.rglob("*.tmp")) and not (out / "manifest.json").exists()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries = json.loads((out / "manifest.json").read_text())["subnets"]
    assert all((out / file).is_file() for entry in entries for file in entry["files"].values())


@pytest.mark.parametrize("option", ["--rounds", "--threads"])
def test_bad_benchmark_options(monkeypatch, tmp_path, option):
    monkeypatch.setattr(sys, "argv", ["benchmark_subnets.py", str(tmp_path), option, "0"])
    with pytest.raises(SystemExit, match=f"{option} 0 must be at least 1"):
        runpy.run_path(str(TOOLS / "benchmark_subnets.py"), run_name="__main__")


def test_benchmark_of_no_export(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["benchmark_subnets.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"manifest\.json does not exist"):
        runpy.run_path(str(TOOLS / "benchmark_subnets.py"), run_name="__main__")
