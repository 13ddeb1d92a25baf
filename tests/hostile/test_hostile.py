"""Some hundred hostile files; CONTRIBUTING.md says how to read some thousand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux does it")
def test_every_file_loads_or_ends_in_one_error():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--cases", "30"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    outcomes = dict(re.findall(r"^([\w ]+): \{(.*)\}", done.stdout, re.MULTILINE))
    assert len(outcomes) == 13
    assert all("PSSError" in outcome for kind, outcome in outcomes.items() if kind != "export record")
