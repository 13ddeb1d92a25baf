"""Processes that work on tasks at once."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from pss_razor.core.errors import PSSError

Task = TypeVar("Task")
Result = TypeVar("Result")
# Until a process that was told to end is killed: it removes its temporary files first.
_PATIENCE_S = 10


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Generic[Task, Result]):
    """Processes with one thread each, which start once and take many tasks. A context manager, which ends them.

    With ``count`` 1 there is no process, and the tasks are done here. A program that starts processes needs the line
    ``if __name__ == "__main__":``, as Python's :mod:`multiprocessing` says: each imports its main file.

    Args:
        function: Of a module, task -> results one after the other. Tasks, results and errors are pickled.
        count: Number of processes.
        describe: Task -> its name, for errors.
    """

    def __init__(
        self, function: Callable[[Task], Iterable[Result]], count: int, describe: Callable[[Task], str] = str
    ) -> None:
        self.function = function
        self.count = count
        self.describe = describe
        self._idle: list[Connection] = []
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Workers[Task, Result]:
        context = multiprocessing.get_context("spawn")
        with _environment_of_workers():
            for _ in range(self.count if self.count > 1 else 0):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, self.function), daemon=True)
                process.start()
                theirs.close()
                self._processes[ours] = process
                self._idle.append(ours)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for connection, process in self._processes.items():
            connection.close()  # which ends one that waits for a task
            if error is not None:
                process.terminate()
        for process in self._processes.values():
            process.join(_PATIENCE_S)
            if process.exitcode is None:
                process.kill()
                process.join()

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
        """Each result with its task, as they come; those of one task in their order.

        One task more than there are processes is taken from ``tasks`` at a time, so memory does not grow with them.

        Raises:
            PSSError: A process died. Errors of the function are raised as they are.
        """
        if not self._processes:
            for task in tasks:
                for result in self.function(task):
                    yield task, result
            return
        busy: dict[Connection, Task] = {}
        for task in tasks:
            while not self._idle:
                yield from self._collect(busy)
            connection = self._idle.pop()
            busy[connection] = task
            with contextlib.suppress(BrokenPipeError):  # it died, which is found when its answer is read
                connection.send_bytes(pickle.dumps(task))
        while busy:
            yield from self._collect(busy)

    def _collect(self, busy: dict[Connection, Task]) -> Iterator[tuple[Task, Result]]:
        """Wait for answers, and take one of each process that has some."""
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            task = busy[connection]
            try:
                kind, value = pickle.loads(connection.recv_bytes())
            except (EOFError, ConnectionResetError):
                process = self._processes[connection]
                process.join()
                raise PSSError(
                    f"{self.describe(task)}: its process ended with exit code {process.exitcode}, for want of memory "
                    "if that is -9; call again with --jobs 1"
                ) from None
            if kind == "result":
                yield task, value
                continue
            del busy[connection]
            self._idle.append(connection)
            if kind == "error":
                error, trace = value
                raise error from _WorkerError(trace)


@contextlib.contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Processes that start inside have one thread, and leave Ctrl-C to the one that started them."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    blockable = hasattr(signal, "pthread_sigmask")  # not on Windows
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if blockable else None
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _WorkerError(Exception):
    """Shown as the cause of an error, which loses its own traceback on the way between processes."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _serve(connection: Connection, function: Callable[[Any], Iterable[Any]]) -> None:
    """The life of a process: do tasks until the other end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # temporary files are removed
    gc.freeze()  # what is imported stays: looking at it in every collection takes a tenth of the time of an export
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = pickle.loads(connection.recv_bytes())
            try:
                for result in function(task):
                    connection.send_bytes(pickle.dumps(("result", result)))
                answer: tuple[str, Any] = ("done", None)
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                answer = ("error", (_picklable(error), traceback.format_exc()))
            connection.send_bytes(pickle.dumps(answer))


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does with its arguments
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
