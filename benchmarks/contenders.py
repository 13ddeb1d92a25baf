"""Contenders of a benchmark, each in a process of its own, in turns on the same cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import Figure

from pss_razor.estimators.latency.timing import time_call_us

Call = Callable[[], object]
# Of a round's number: what is timed. What it takes to make it is not.
Prepare = Callable[[int], Call]
# Rounds before those that are timed, with negative numbers.
WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Args:
        build: Called in its process, once; must be picklable, such as a ``functools.partial`` of a module's function.
        environment: Variables of its process besides those of this one. An empty one is removed.
    """

    build: Callable[[], Prepare]
    environment: Mapping[str, str] = field(default_factory=dict)


def compare_contenders(
    times: Mapping[str, Sequence[float]], ours: str, theirs: str, what: str, where: str, **bar: float
) -> Figure:
    """How many times as long ``ours`` takes as ``theirs``: the median, and the quartiles, of the ratios of all rounds.

    Args:
        times: Seconds of each contender in each round.
        ours: Name of one.
        theirs: Name of the baseline.
        what: What the baseline is.
        where: The conditions.
        **bar: ``at_most`` or ``at_least``.
    """
    ratios = [own / other for own, other in zip(times[ours], times[theirs], strict=True)]
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    seconds = statistics.median(times[theirs])
    return Figure(
        f"{ours}_over_{theirs}", median, "x", f"{what} {seconds * 1e3:.0f} ms, {where}, {len(ratios)} rounds",
        spread=(low, high), **bar,
    )  # fmt: skip


def time_contenders(
    contenders: Mapping[str, Contender], rounds: int, threads: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each contender in each round.

    A process has no other contender's memory, caches and threads. All are bound to the same cores, and run one after
    the other in each round, in the opposite order in every second one, so that a slow moment of the machine meets all.
    Others have used the processor's caches meanwhile: what is timed comes right after the call of the round before,
    which is made again.

    Args:
        contenders: By name.
        rounds: How many are timed, numbered from 0; others come before.
        threads: Of torch, in each process, which is bound to as many cores.
        device: ``"cpu"`` or ``"cuda"``.
    """
    if rounds < 1:
        sys.exit(f"error: rounds = {rounds}: at least 1 is needed")
    cores = sorted(os.sched_getaffinity(0))[:threads]
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(_process(name, contender, cores, device))
            for name, contender in contenders.items()
        }
        for name, connection in processes.items():
            _receive(connection, name)  # it is built
        for number in range(-WARM_UP_ROUNDS, rounds):
            names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
            for name in names:
                seconds = _ask(processes[name], name, number)
                if number >= 0:
                    times[name].append(seconds)
    return times


@contextmanager
def _process(name: str, contender: Contender, cores: Sequence[int], device: str) -> Iterator[Connection]:
    """The connection to a contender's process."""
    context = multiprocessing.get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=_contend, args=(other, contender.build, cores, device), name=name, daemon=True)
    environment = {**os.environ, **contender.environment, "OMP_NUM_THREADS": str(len(cores))}
    with mock.patch.dict(os.environ, {key: value for key, value in environment.items() if value}, clear=True):
        process.start()
    other.close()
    try:
        yield own
        own.send(None)
        process.join(30)
    finally:
        process.kill()


def _ask(connection: Connection, name: str, number: int) -> float:
    connection.send(number)
    return _receive(connection, name)


def _receive(connection: Connection, name: str) -> Any:
    try:
        return connection.recv()
    except EOFError:
        raise RuntimeError(f"the contender {name!r} ended; its error is above") from None


def _contend(connection: Connection, build: Callable[[], Prepare], cores: Sequence[int], device: str) -> None:
    """A contender's process: does what it is asked for, and says how long it took."""
    os.sched_setaffinity(0, cores)
    logging.disable(logging.WARNING)
    torch.set_num_threads(len(cores))
    prepare = build()
    connection.send("built")
    before = None
    while (number := connection.recv()) is not None:
        call = prepare(number)
        if before is not None:
            before()
        connection.send(time_call_us(call, device) * 1e-6)
        before = call
