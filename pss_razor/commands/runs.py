"""Several trainings and their tests as processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config


def is_complete(work_dir: Path) -> bool:
    """Whether a run has left its results.

    Raises:
        ConfigError: The results file is something else.
    """
    # Imported late: this module answers --help.
    from pss_razor.evaluation.results import RESULTS_FILE, read_document

    if not (work_dir / RESULTS_FILE).exists():
        return False
    read_document(work_dir / RESULTS_FILE)
    return True


def check_options(out_dir: Path, jobs: int) -> None:
    """Check where runs are kept, and how many run at once.

    Raises:
        ConfigError: The folder is a file, or there are no jobs.
    """
    from pss_razor.core import ConfigError

    if out_dir.exists() and not out_dir.is_dir():
        raise ConfigError(f"--out-dir {out_dir} is a file; choose another path")
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs} must be at least 1")


def keep_settings(folder: Path, config: Config, name: str) -> None:
    """Write the settings of the runs in a folder to ``settings.json``, or compare them with those that are there.

    Args:
        folder: Of runs that differ in their seeds only; it is made.
        config: Their config.
        name: What is run, for the error.

    Raises:
        ConfigError: The folder has runs of other settings.
    """
    from pss_razor.core import ConfigError, atomic_write

    settings = {k: v for k, v in config.to_dict().items() if k not in ("work_dir", "randomness", "env_cfg")}
    text = json.dumps(settings, indent=1, sort_keys=True, default=str)
    file = folder / "settings.json"
    if file.exists() and file.read_text() != text:
        raise ConfigError(f"{folder} has runs of other settings than {name} has now; choose another --out-dir")
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(file, text.encode())


class Runs:
    """Runs of tools/train.py and tools/test.py as processes of their own, which end with this one.

    Args:
        tools: Folder of the two.
        options: ``--cfg-options`` of all runs.
        jobs: How many run at once; above 1 each has one CPU thread.
    """

    def __init__(self, tools: Path, options: Sequence[str], jobs: int) -> None:
        self.tools = tools
        self.options = list(options)
        self.environment = {**os.environ, **({"OMP_NUM_THREADS": "1"} if jobs > 1 else {})}
        self._processes: set[subprocess.Popen] = set()
        self._stopped = False

    def run(self, config: str, seed: int, work_dir: Path, options: Sequence[str] = ()) -> None:
        """Train and test one config with one seed; an interrupted run continues from its newest checkpoint.

        Args:
            config: Its file.
            seed: Its seed.
            work_dir: Folder of checkpoints, logs (``run.log``) and the results file.
            options: More ``--cfg-options``.

        Raises:
            PSSError: The training or the test failed.
        """
        from pss_razor.checkpoints.checkpoint import find_latest_checkpoint
        from pss_razor.core import PSSError
        from pss_razor.evaluation.results import RESULTS_FILE

        work_dir.mkdir(parents=True, exist_ok=True)
        common = ["--work-dir", str(work_dir), "--cfg-options", *self.options, *options, f"randomness.seed={seed}"]
        self._call(work_dir, "train.py", config, "--resume", "auto", "--no-validate", *common)
        checkpoint = find_latest_checkpoint(work_dir)
        if checkpoint is None:
            raise PSSError(f"{work_dir}: the training left no checkpoint; see {work_dir / 'run.log'}")
        self._call(work_dir, "test.py", config, str(checkpoint), "--out", str(work_dir / RESULTS_FILE), *common)

    def stop(self) -> None:
        """Terminate the running processes, and start no more."""
        self._stopped = True
        for process in list(self._processes):
            process.terminate()

    def _call(self, work_dir: Path, tool: str, *args: str) -> None:
        if self._stopped:
            return
        log = work_dir / "run.log"
        command = [sys.executable, str(self.tools / tool), *args]
        with log.open("a") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=self.environment)
            self._processes.add(process)
            try:
                code = process.wait()
            finally:
                self._processes.discard(process)
        if code != 0 and not self._stopped:
            from pss_razor.core import PSSError

            last = next((line for line in reversed(log.read_text().splitlines()) if line.strip()), "")
            raise PSSError(
                f"tools/{tool} failed in {work_dir} (exit code {code}): {last.removeprefix('error: ')}; the whole "
                f"output is in {log}. The other runs are kept: call again to continue"
            )


@contextlib.contextmanager
def stopped_at_the_end(runs: Runs, executor: ThreadPoolExecutor) -> Iterator[None]:
    """Stop all runs when the body ends, by an error or SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        runs.stop()
        executor.shutdown(cancel_futures=True)
