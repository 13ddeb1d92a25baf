"""The example runs, and docs/networks.md shows its code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pss_razor.deploy import load_bundle, read_manifest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "plain_pytorch.py"


def test_the_document_has_its_code():
    body = re.search(r'def run\(.*?"""\n(.*?)\n\n\nif __name__', EXAMPLE.read_text(), re.DOTALL)[1]
    assert f"```python\n{textwrap.dedent(body)}\n```" in (ROOT / "docs" / "networks.md").read_text()


@pytest.mark.slow
def test_runs(tmp_path):
    command = [sys.executable, EXAMPLE, "--epochs", "1", "--out", tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert any(line.startswith("searched: 100.0% of the FLOPs") for line in lines)
    entries = {entry["name"]: entry for entry in read_manifest(tmp_path / "export")["subnets"]}
    assert len(entries) == 5 and all(
        {"weights", "onnx", "bundle"} <= entry["files"].keys() for entry in entries.values()
    )
    for mflops in (15, 30):
        (name,) = re.findall(rf"^within {mflops} MFLOPs: (\w+\.?\d*), ", done.stdout, re.MULTILINE)
        within = [entry for entry in entries.values() if entry["resources"]["flops"] <= mflops]
        assert entries[name]["accuracy"] == max(entry["accuracy"] for entry in within)
    assert {subnet.name for subnet in load_bundle(tmp_path / "export" / "bundle.safetensors").subnets} == set(entries)
