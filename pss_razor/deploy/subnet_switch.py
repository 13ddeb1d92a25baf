"""Which of several subnets runs: the part that all runtimes have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pss_razor.core import ExportError, is_number
from pss_razor.deploy.subnet_record import SubnetRecord
from pss_razor.static.static_net import IMAGE_CHANNELS, show

_MICROSECONDS = "_us"


class SubnetSwitch(ABC):
    """Several subnets, one of which is current: a call runs that one.

    Any number of threads may call and switch at the same time: a forward pass ends with the subnet it began with.
    Which subnet is current is common to all threads.

    Args:
        subnets: At least one; the most accurate is current at first.
        preprocessing: What is to be done to images before a call.
        device: Where the images must be.

    Attributes:
        subnets: The subnets.
        preprocessing: As given.
        device: As given.

    Raises:
        ExportError: There are no subnets, or two have one name.
    """

    def __init__(
        self,
        subnets: Sequence[SubnetRecord],
        preprocessing: Mapping[str, Any],
        device: str | torch.device = "cpu",
    ) -> None:
        if not subnets:
            raise ExportError("there are no subnets to choose from; export at least one")
        self.subnets: tuple[SubnetRecord, ...] = tuple(subnets)
        self.preprocessing = dict(preprocessing)
        self.device = torch.device(device)
        self._indices = {subnet.name: index for index, subnet in enumerate(subnets)}
        if len(self._indices) < len(subnets):
            raise ExportError("two subnets have the same name; export them again")
        self._metrics = _budget_names(subnets)
        self._current = 0
        self.select()

    @property
    def current(self) -> SubnetRecord:
        """The subnet that the next call runs."""
        return self.subnets[self._current]

    @property
    def metrics(self) -> list[str]:
        """Metrics that are known of all subnets, and can be budgets."""
        return sorted(set(self._metrics.values()))

    def select(self, **budgets: float) -> SubnetRecord:
        """Makes the most accurate subnet within all budgets the current one.

        Args:
            **budgets: Metric -> largest value, in the metric's unit: ``flops=150`` (millions), ``latency_cpu=20_000``
                or ``latency_cpu_us=20_000``. Without any, all subnets are within.

        Returns:
            The subnet, whatever other threads choose meanwhile. Of two with the same accuracy it is the cheaper one.
            Subnets without a measured accuracy come last; of these it is the most expensive.

        Raises:
            ExportError: A metric is unknown or given under two names, a budget is not a positive number, or no subnet
                is within the budgets; the message names the cheapest then, and the current subnet stays.

        Example:
            >>> model.select(latency_cpu_us=20_000, params=3.0)  # doctest: +SKIP
        """
        names = {name: self.metric_of(name) for name in budgets}
        for metric in names.values():
            if len(same := [name for name in names if names[name] == metric]) > 1:
                raise ExportError(f"{' and '.join(same)} are one budget; give one of them")
        limits = {metric: _checked_budget(name, budgets[name]) for name, metric in names.items()}
        feasible = [
            index
            for index, subnet in enumerate(self.subnets)
            if all(subnet.resources[metric] <= limit for metric, limit in limits.items())
        ]
        if not feasible:
            cheapest = min(self.subnets, key=lambda s: max(s.resources[metric] / limits[metric] for metric in limits))
            wanted = " and ".join(f"{metric} <= {limit:g}" for metric, limit in limits.items())
            has = " and ".join(f"{metric} = {cheapest.resources[metric]:g}" for metric in limits)
            raise ExportError(f"no subnet has {wanted}; the cheapest, {show(cheapest.name)}, has {has}")
        cost = next(iter([*limits, *self._metrics.values()]), None)
        return self._switch(max(feasible, key=lambda index: _rank(self.subnets[index], cost)))

    def use(self, name: str) -> SubnetRecord:
        """Makes a subnet the current one, by its name.

        Raises:
            ExportError: There is no such subnet.
        """
        return self._switch(self._index(name))

    def ladder(self, metric: str) -> list[SubnetRecord]:
        """The subnets from the cheapest to the most accurate, without those that a cheaper one equals or surpasses.

        Args:
            metric: What cheap means, as for :meth:`select`.

        Raises:
            ExportError: The metric is unknown.
        """
        metric = self.metric_of(metric)
        rungs: list[SubnetRecord] = []
        for subnet in sorted(self.subnets, key=lambda subnet: (subnet.resources[metric], -(subnet.accuracy or 0))):
            if not rungs or _quality(subnet, metric) > _quality(rungs[-1], metric):
                rungs.append(subnet)
        return rungs

    def metric_of(self, name: str) -> str:
        """The metric that a budget's name means; a latency's may end with its unit, ``_us``, or not.

        Raises:
            ExportError: It is unknown.
        """
        if name not in self._metrics:
            known = ", ".join(self.metrics) or "none"
            raise ExportError(f"{show(name)} is not a resource that is known of all subnets; known: {known}")
        return self._metrics[name]

    def __call__(self, images: Tensor) -> Tensor:
        """Runs the current subnet at its resolution.

        Args:
            images: Normalised images, float (N, 3, H, W), of any size.

        Returns:
            Logits, (N, classes).

        Raises:
            ExportError: ``images`` has another number of dimensions or channels, or is not float.
        """
        return self._run(self._current, images)

    def warm_up(self, names: Iterable[str] | None = None, batch_size: int = 1) -> None:
        """Runs subnets once on an empty image, so that the first real one does not have to wait.

        Args:
            names: Names of subnets; None for the current one. Which one is current does not change.
            batch_size: Number of images N of the batches to come.

        Raises:
            ExportError: There is no such subnet.
        """
        for name in [self.current.name] if names is None else list(names):
            index = self._index(name)
            side = self.subnets[index].resolution
            self._run(index, torch.zeros(batch_size, IMAGE_CHANNELS, side, side, device=self.device))

    def _switch(self, index: int) -> SubnetRecord:
        """Makes a subnet the current one, and returns it: by then another thread may have chosen another."""
        self._current = index
        return self.subnets[index]

    def _index(self, name: str) -> int:
        if name not in self._indices:
            raise ExportError(f"there is no subnet {show(name)}; there are {', '.join(self._indices)}")
        return self._indices[name]

    @abstractmethod
    def _run(self, index: int, images: Tensor) -> Tensor:
        """Logits, (N, classes), of the subnet with this index."""


def _budget_names(subnets: Sequence[SubnetRecord]) -> dict[str, str]:
    """Every name that a budget may have -> metric."""
    metrics = [metric for metric in subnets[0].resources if all(metric in subnet.resources for subnet in subnets)]
    names = {metric: metric for metric in metrics}
    for metric in metrics:
        if metric.endswith(_MICROSECONDS):
            names.setdefault(metric.removesuffix(_MICROSECONDS), metric)
        elif metric.startswith("latency"):
            names.setdefault(metric + _MICROSECONDS, metric)
    return names


def _checked_budget(name: str, value: Any) -> float:
    if not (is_number(value) and value > 0):
        raise ExportError(f"budget {name} is {show(value)}; it must be a positive number")
    return value


def _quality(subnet: SubnetRecord, metric: str | None) -> tuple[bool, float]:
    """Larger is better. Without a measured accuracy, what takes more of the metric is taken for better."""
    if subnet.accuracy is None:
        return False, 0.0 if metric is None else subnet.resources[metric]
    return True, subnet.accuracy


def _rank(subnet: SubnetRecord, metric: str | None) -> tuple[tuple[bool, float], float]:
    """Larger is better, and cheaper if equally good."""
    return _quality(subnet, metric), 0.0 if metric is None else -subnet.resources[metric]
