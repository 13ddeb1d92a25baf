"""Processes that work on tasks at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import worker_functions as functions

from pss_razor.core import ConfigError, PSSError, Workers, usable_cores


@pytest.mark.parametrize("count", [1, 3])
def test_results(count):
    """Those of a task in their order, each task once, whatever the number of processes."""
    taken = []

    def tasks():
        for number in range(8):
            taken.append(number)
            yield number

    with Workers(functions.count_up, count) as workers:
        results: dict[int, list[int]] = {}
        for task, (number, process) in workers.run(tasks()):
            results.setdefault(task, []).append(number)
            assert (process == os.getpid()) == (count == 1)
            # Memory: the tasks that are taken are those in work, those done, and one more.
            assert len(taken) <= len(results) + count + 1
    assert results == {task: list(range(task, task + 3)) for task in range(8)}


def test_a_process_takes_many_tasks_with_one_thread():
    with Workers(functions.describe_process, 2) as workers:
        found = [own for _, own in workers.run(range(6))]
    assert len({process for process, _ in found}) <= 2
    assert {threads for _, threads in found} == {"1"}
    assert not any(is_alive(process) for process, _ in found)


def test_errors_are_raised_as_they_are():
    with pytest.raises(ConfigError, match="task 3 is bad") as caught, Workers(functions.fail_at_3, 2) as workers:
        list(workers.run(range(5)))
    assert "in fail_at_3" in str(caught.value.__cause__)  # where, in the other process
    with (
        pytest.raises(RuntimeError, match="UnpicklableError: no such thing"),
        Workers(functions.fail_oddly, 2) as workers,
    ):
        list(workers.run(range(2)))


def test_a_process_that_dies():
    with (
        pytest.raises(PSSError, match=r"subnet 1: its process ended with exit code -9.*--jobs 1"),
        Workers(functions.die_at_1, 2, lambda task: f"subnet {task}") as workers,
    ):
        list(workers.run(range(4)))


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


PROGRAM = """
import sys
from worker_functions import leave_a_file_while_working
from pss_razor.core import Workers

if __name__ == "__main__":
    with Workers(leave_a_file_while_working, 2) as workers:
        for task, process in workers.run([sys.argv[1]] * 2):
            print(process, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_leaves_no_processes_and_no_files(tmp_path, number):
    """Ctrl-C reaches all processes of the terminal; a kill only the first."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    running = subprocess.Popen(
        [sys.executable, str(program), str(work)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    processes: set[int] = set()
    while len(processes) < 2:  # the first may say it several times before the second has started
        processes.add(int(running.stdout.readline()))
    assert len(list(work.iterdir())) == 2 and all(map(is_alive, processes))
    (os.killpg if number == signal.SIGINT else os.kill)(running.pid, number)
    _, err = running.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, processes)) and not list(work.iterdir())
    if number == signal.SIGINT:
        assert err.count("Traceback") == 1 and "KeyboardInterrupt" in err


def test_usable_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3}, raising=False)
    assert usable_cores() == 2
