"""Which subnet to run, from how long the last ones took."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pss_razor.core import ExportError
from pss_razor.deploy.subnet_record import SubnetRecord
from pss_razor.deploy.subnet_switch import SubnetSwitch

# An upgrade that fails again and again is tried after at most so many times the first patience.
_MAX_BACKOFF = 32


class AdaptiveController:
    """Runs the best subnet that meets a latency on a machine whose speed changes.

    It moves among the subnets of :meth:`SubnetSwitch.ladder`. The median latency of the last ``window`` calls, times
    the ratio of two subnets' costs, predicts the latency of the other. A median above the target moves at once, to the
    best subnet whose prediction is below ``headroom`` of the target, or to the next cheaper one at least. A better
    subnet is taken only when its prediction has been below ``headroom`` of the target for ``patience`` calls; if it
    has to be left within as many calls, the next attempt waits twice as long, so that a subnet whose latency is
    mispredicted is not tried for ever. All this follows from the measured latencies alone.

    Costs that are no latencies of this machine mislead, as FLOPs do where small networks take almost as long as large
    ones; :meth:`calibrate` replaces them by measurements.

    Not to be called by several threads at once. While it is in use, it decides what subnet is current.

    Args:
        model: The subnets.
        target_latency_us: Latency that a call is to meet, in microseconds.
        metric: Metric that gives the costs of subnets; None takes the one latency that the model knows, else "flops".
        window: Number of calls that a decision looks at. Fewer than half may be outliers.
        headroom: Part of the target that a subnet may be predicted to take, above 0 and at most 1.
        patience: Calls in a row for which a better subnet must be predicted to meet the target; None for three windows.
        clock: Returns the time in seconds.

    Attributes:
        model: As given.
        target_latency_us: As given.
        ladder: The subnets among which it moves, the cheapest first.

    Raises:
        ExportError: A number is out of range, a cost is not positive, the metric is unknown, or it is not given and
            the model has several latencies.

    Example:
        >>> controller = AdaptiveController(model, target_latency_us=30_000)  # doctest: +SKIP
        >>> logits = controller(images)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: SubnetSwitch,
        target_latency_us: float,
        metric: str | None = None,
        window: int = 15,
        headroom: float = 0.9,
        patience: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        def check(good: bool, name: str, value: Any, wanted: str) -> None:
            if not good:
                raise ExportError(f"{name} is {value!r}; it must be {wanted}")

        check(0 < target_latency_us < math.inf, "target_latency_us", target_latency_us, "a positive number")
        check(type(window) is int and window >= 1, "window", window, "at least 1")
        check(0 < headroom <= 1, "headroom", headroom, "above 0 and at most 1")
        check(patience is None or (type(patience) is int and patience >= 1), "patience", patience, "at least 1")
        metric = model.metric_of(_default_metric(model) if metric is None else metric)
        self.model = model
        self.target_latency_us = target_latency_us
        self.ladder = model.ladder(metric)
        self._costs = [subnet.resources[metric] for subnet in self.ladder]
        check(min(self._costs) > 0, f"the smallest {metric} of a subnet", min(self._costs), "positive")
        self._headroom = headroom
        self._first_patience = self._patience = 3 * window if patience is None else patience
        self._clock = clock
        self._latencies: deque[float] = deque(maxlen=window)
        self._warming_up = True
        self._calm = 0  # decisions in a row at which a better subnet was predicted to meet the target
        self._on_trial = 0  # decisions for which the last upgrade must still hold
        self._position = self._best(1.0) if metric.startswith("latency") else 0

    @property
    def current(self) -> SubnetRecord:
        """The subnet that the next call runs."""
        return self.ladder[self._position]

    @property
    def median_latency_us(self) -> float | None:
        """Median of the last calls with the current subnet; None while they are fewer than the window."""
        return statistics.median(self._latencies) if len(self._latencies) == self._latencies.maxlen else None

    def __call__(self, images: Tensor) -> Tensor:
        """Runs the current subnet, measures it, and decides which is next; see :class:`SubnetSwitch`."""
        self.model.use(self.current.name)
        logits, latency_us = self._measure(images)
        self.observe(latency_us)
        return logits

    def calibrate(self, images: Tensor, calls: int = 15) -> None:
        """Measures all subnets of the ladder, and moves to the best that meets the target.

        Call it while the machine is as idle as it will be in use.

        Args:
            images: A batch like those in use, (N, 3, H, W).
            calls: Number of measured calls of each subnet; their median counts.
        """
        medians = []
        for subnet in self.ladder:
            self.model.use(subnet.name)
            latencies = [self._measure(images)[1] for _ in range(calls + 1)]
            medians.append(statistics.median(latencies[1:]))
        self._costs = medians
        self._move(self._best(1.0))

    def observe(self, latency_us: float) -> SubnetRecord:
        """Takes note of a latency of the current subnet; for those who run and measure it themselves.

        Returns:
            The subnet to run next.
        """
        if self._warming_up:  # a subnet's first call prepares its weights
            self._warming_up = False
            return self.current
        self._latencies.append(latency_us)
        median = self.median_latency_us
        if median is not None:
            self._decide(median)
        return self.current

    def _decide(self, median: float) -> None:
        best = self._best(median / self._costs[self._position])
        is_on_trial = self._on_trial > 0
        if is_on_trial:
            self._on_trial -= 1
        if median > self.target_latency_us:
            if self._position == 0:
                return
            if is_on_trial:
                self._patience = min(2 * self._patience, _MAX_BACKOFF * self._first_patience)
            self._move(min(best, self._position - 1))
            return
        if is_on_trial and not self._on_trial:
            self._patience = self._first_patience
        if best > self._position:
            self._calm += 1
            if self._calm >= self._patience:
                self._move(best)
                self._on_trial = self._patience
        else:
            self._calm = 0

    def _measure(self, images: Tensor) -> tuple[Tensor, float]:
        start = self._clock()
        logits = self.model(images)
        if logits.is_cuda:
            torch.cuda.synchronize(logits.device)
        return logits, (self._clock() - start) * 1e6

    def _best(self, us_per_cost: float) -> int:
        """Position of the best subnet that is predicted to meet the target with headroom, or of the cheapest."""
        limit = self._headroom * self.target_latency_us
        return max((i for i, cost in enumerate(self._costs) if us_per_cost * cost <= limit), default=0)

    def _move(self, position: int) -> None:
        self._position = position
        self._latencies.clear()
        self._warming_up = True
        self._calm = self._on_trial = 0


def _default_metric(model: SubnetSwitch) -> str:
    latencies = [metric for metric in model.metrics if metric.startswith("latency")]
    if len(latencies) > 1:
        raise ExportError(f"the subnets have {', '.join(latencies)}; say by metric=… which is this machine's")
    return latencies[0] if latencies else "flops"
