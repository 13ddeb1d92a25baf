"""What the processes of test_workers.py do; of a module, so that they can import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from pss_razor.core import ConfigError


def count_up(task: int) -> Iterator[tuple[int, int]]:
    for number in range(task, task + 3):
        yield number, os.getpid()


def describe_process(task: int) -> Iterator[tuple[int, str]]:
    yield os.getpid(), os.environ["OMP_NUM_THREADS"]


def fail_at_3(task: int) -> Iterator[int]:
    if task == 3:
        raise ConfigError(f"task {task} is bad")
    yield task


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fail_oddly(task: int) -> Iterator[int]:
    raise UnpicklableError("no such", "thing")
    yield task


def die_at_1(task: int) -> Iterator[int]:
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    yield task


def leave_a_file_while_working(folder: str) -> Iterator[int]:
    """As an atomic write does: a temporary file that goes if the work is broken off."""
    path = Path(folder) / str(os.getpid())
    path.touch()
    try:
        for _ in range(200):
            yield os.getpid()
            time.sleep(0.05)
    finally:
        path.unlink()
