"""Start-up of the command line: ``python benchmarks/start_up.py``.

Time of ``tools/train.py --help``, and from the launch of a training on the digits to the end of its first iteration.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import ROOT, Figure, main

# Imported by the training as a custom import; ends the process where its first iteration ends.
STOP_AT_FIRST_ITERATION = """
import os
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class StopAtFirstIteration(Hook):
    priority = "LOWEST"

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        print("first iteration done", flush=True)
        os._exit(0)
"""

CONFIG = """
_base_ = "{base}"
custom_imports = dict(imports=["pss_razor.plugin", "stop_at_first_iteration"])
custom_hooks = [dict(type="StopAtFirstIteration")]
"""


def seconds(command: list[str], rounds: int, folder: str) -> float:
    """Median seconds of a command that must succeed, after one warm-up run."""
    environment = {**os.environ, "PYTHONPATH": folder}
    samples = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        samples.append(time.perf_counter() - start)
    return statistics.median(samples[1:])


def measure(rounds: int) -> Iterator[Figure]:
    """Both times, files in the operating system's cache."""
    train = [sys.executable, str(ROOT / "tools" / "train.py")]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "stop_at_first_iteration.py").write_text(STOP_AT_FIRST_ITERATION)
        yield Figure("train_help", seconds([*train, "--help"], rounds, folder), "s", at_most=3)
        config = Path(folder, "config.py")
        config.write_text(CONFIG.format(base=ROOT / "configs" / "pss" / "pss_mbv2_flops_digits.py"))
        command = [*train, str(config), "--work-dir", f"{folder}/work"]
        yield Figure("first_iteration_on_digits", seconds(command, rounds, folder), "s", "from launch", at_most=15)


if __name__ == "__main__":
    main(measure, "start-up", rounds=3)
