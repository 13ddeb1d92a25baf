"""Which of several evaluated subnets is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pss_razor.core.errors import ConfigError
from pss_razor.core.evaluated_subnet import EvaluatedSubnet
from pss_razor.core.scalars import is_scalar

RULES = ("greater", "less")


@dataclass(frozen=True)
class Criterion:
    """The metric that decides, and in which direction.

    Args:
        metric: A metric of the evaluator, such as ``"accuracy/top1"``; None takes the first that is a number.
        rule: ``"greater"`` if more is better, ``"less"`` if less is.

    Raises:
        ConfigError: The rule is unknown.
    """

    metric: str | None = None
    rule: str = "greater"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"rule = {self.rule!r} is not known; choose from {list(RULES)}")

    def resolve(self, metrics: Mapping[str, Any]) -> Criterion:
        """The criterion with the metric's name, for an evaluator that reports ``metrics``.

        Raises:
            ConfigError: The metric is not reported, or is no number; or none is.
        """
        numbers = [name for name, value in metrics.items() if is_scalar(value)]
        if self.metric is None and numbers:
            return Criterion(numbers[0], self.rule)
        if self.metric not in numbers:
            wanted = "no metric" if self.metric is None else f"decided_by = {self.metric!r}, which"
            problem = "is a number" if self.metric is None else "is not among those that are numbers"
            raise ConfigError(
                f"{wanted} {problem}: the evaluator reports {sorted(metrics)}, of which numbers are {numbers}; choose "
                "one of these by decided_by in val_cfg and test_cfg, or add a metric such as mmcls.Accuracy"
            )
        return self

    @property
    def name(self) -> str:
        """The metric's name. Only a resolved criterion has one."""
        assert self.metric is not None, "resolve() comes first"
        return self.metric

    def value(self, metrics: Mapping[str, Any]) -> float:
        """Value of the metric that decides.

        Raises:
            ConfigError: See :meth:`resolve`.
        """
        return metrics[self.resolve(metrics).name]

    def quality(self, metrics: Mapping[str, Any]) -> float:
        """The metric, negated if less is better; minus infinity where it is missing or not finite."""
        value = metrics.get(self.name)
        if value is None or not math.isfinite(value):
            return -math.inf
        return float(value) if self.rule == "greater" else -float(value)


def best_of_pools(subnets: Sequence[EvaluatedSubnet], criterion: Criterion) -> list[EvaluatedSubnet]:
    """The largest and the smallest subnet, and of every pool the best by the criterion, in pool order.

    Of equally good subnets the first is taken, so that the order in the pool decides.

    Args:
        subnets: Evaluated subnets.
        criterion: What decides; must be resolved.
    """
    best: dict[str, EvaluatedSubnet] = {}
    for subnet in subnets:
        quality = criterion.quality(subnet.deciding_metrics)
        if subnet.name not in best or quality > criterion.quality(best[subnet.name].deciding_metrics):
            best[subnet.name] = subnet
    return list(best.values())
