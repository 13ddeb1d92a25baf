"""Timing what is done in microseconds, on a machine that others use too."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

# A check of the machine's speed is so many timings of the reference network. The next check comes when other timings
# have taken so many times as long as a check.
_LOOKS, _SPEED_INTERVAL = 3, 4

# Just below the maximum of glibc's mmap threshold, 32 MiB.
_HEAP_BYTES = 31 * 2**20


@dataclass(frozen=True)
class Timing:
    """Repeated timings of one thing.

    Args:
        median_us: Median, microseconds.
        spread_us: Interquartile range, microseconds.
    """

    median_us: float
    spread_us: float


class MachineSpeed:
    """How fast the machine is now: one network, always the same, is timed again and again.

    A shared or virtual machine changes its speed by tens of percent within seconds. Timings that are divided by the
    reference network's of the same moment can be compared, within a table and between a table and a later check.

    Args:
        reference: Runs the reference network.
        device: ``"cpu"`` or ``"cuda"``.
        reference_us: Its time in microseconds when the table to be continued was begun; None for a new table.

    Attributes:
        reference_us: As given; for a new table, what the reference network took at construction.
    """

    def __init__(self, reference: Callable[[], object], device: str, reference_us: float | None = None) -> None:
        self._reference = reference
        self._device = device
        _warm_up(device)
        self.time_us()
        self.reference_us = reference_us or statistics.median(self.time_us() for _ in range(9))

    def time_us(self) -> float:
        """What the reference network takes now, microseconds."""
        return statistics.median(time_call_us(self._reference, self._device) for _ in range(_LOOKS))

    def factor(self) -> float:
        """What to multiply a timing of now by, so that it compares with those made when the table was begun."""
        return self.reference_us / self.time_us()


def time_interleaved(
    calls: Sequence[Callable[[], object]], rounds: int, device: str, speed: MachineSpeed | None = None
) -> list[Timing]:
    """Time several calls in turn, in another order every round, after one warm-up round.

    Args:
        calls: What to time; each is called ``rounds + 1`` times.
        rounds: Timed rounds.
        device: ``"cpu"`` or ``"cuda"``; on a GPU, a call ends when its kernels have.
        speed: Corrects the timings for changes of the machine's speed.

    Returns:
        A timing for each call.
    """
    _warm_up(device)
    interval_us = _SPEED_INTERVAL * _LOOKS * speed.reference_us if speed else math.inf
    samples: list[list[float]] = [[] for _ in calls]
    order = list(range(len(calls)))
    shuffler = random.Random(0)
    for number in range(rounds + 1):
        shuffler.shuffle(order)
        waiting: list[tuple[int, float]] = []
        factor = speed.factor() if speed else 1.0
        for position, index in enumerate(order, start=1):
            elapsed_us = time_call_us(calls[index], device)
            if number:
                waiting.append((index, elapsed_us))
            if position == len(order) or sum(value for _, value in waiting) > interval_us:
                before, factor = factor, speed.factor() if speed else 1.0
                for waiting_index, value in waiting:
                    samples[waiting_index].append(value * (before + factor) / 2)
                waiting.clear()
    quartiles = [statistics.quantiles(own, n=4) if len(own) > 1 else [own[0]] * 3 for own in samples]
    return [Timing(median, upper - lower) for lower, median, upper in quartiles]


def _warm_up(device: str) -> None:
    """Let glibc keep freed memory, as it does in a process that has run for a while.

    glibc keeps blocks up to the size of the largest that was ever freed. Before a large one has been freed, every large
    feature map is returned to the system, and allocating it again costs page faults: at times three times a block's
    latency.
    """
    if device == "cpu":
        torch.empty(_HEAP_BYTES, dtype=torch.uint8)


def time_call_us(call: Callable[[], object], device: str) -> float:
    """One timing of a call in microseconds; on a GPU, until its kernels have ended."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e6
