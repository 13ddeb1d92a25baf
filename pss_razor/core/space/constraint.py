"""Resource constraints: the targets of one metric, and which target a subnet belongs to."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pss_razor.core.errors import ConfigError


@dataclass(frozen=True)
class Constraint:
    """Targets ``first, first + step, …, last`` of one metric.

    A subnet with resource r belongs to ``round((r - offset) / step) * step + offset``, ``offset = first mod step``
    (PSS-Net, section 3).

    Args:
        metric: Name of the metric, a key of the estimators: ``flops`` (in 1e6 MACs), ``params``, ``latency_cpu``, …
        first: Smallest target, in the metric's unit.
        last: Largest target; ``last - first`` is a multiple of ``step``.
        step: Distance between targets.
    """

    metric: str
    first: float
    last: float
    step: float

    def __post_init__(self) -> None:
        for name in ("first", "last", "step"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"constraint on {self.metric}: {name} = {getattr(self, name)} must be finite")
        if self.step <= 0:
            raise ConfigError(f"constraint on {self.metric}: step = {self.step} must be positive")
        if self.last < self.first:
            raise ConfigError(f"constraint on {self.metric}: last = {self.last} is below first = {self.first}")
        count = (self.last - self.first) / self.step
        if abs(count - round(count)) > 1e-6:
            raise ConfigError(
                f"constraint on {self.metric}: from first = {self.first} to last = {self.last} is not a whole number "
                f"of steps of {self.step}; try last = {self.first + round(count) * self.step:.12g}"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Constraint:
        """Build from a config dict with the keys ``metric, first, last, step``.

        Raises:
            ConfigError: A key is missing or unknown, or a value cannot work.
        """
        _check_keys(config)
        return cls(**config)

    @classmethod
    def spread(cls, metric: str, num_targets: int, low: float, high: float) -> Constraint:
        """Evenly spaced targets from about ``low`` to about ``high``; the step has three significant digits.

        Raises:
            ConfigError: ``num_targets`` is below 2, or ``low`` is not below ``high``.
        """
        if num_targets < 2 or not low < high:
            raise ConfigError(
                f"constraint on {metric}: num_targets = {num_targets} from {low:.6g} to {high:.6g}; at least 2 targets "
                "between different resources are needed"
            )
        step = float(f"{(high - low) / (num_targets - 1):.3g}")
        decimals = max(0, 2 - math.floor(math.log10(step)))
        first = round(low, decimals)
        return cls(metric, first, round(first + (num_targets - 1) * step, decimals), step)

    @cached_property
    def targets(self) -> tuple[float, ...]:
        """All targets, increasing; whole numbers as int."""
        count = round((self.last - self.first) / self.step) + 1
        values = (round(self.first + i * self.step, 9) for i in range(count))
        return tuple(int(value) if float(value).is_integer() else value for value in values)

    def nearest_target_index(self, resources: np.ndarray) -> np.ndarray:
        """Index among :attr:`targets` of the target that each resource belongs to; -1 if it is none of them.

        Args:
            resources: float (N,), in the metric's unit.

        Returns:
            int64 (N,).
        """
        offset = self.first % self.step
        first_index = np.rint((self.first - offset) / self.step)
        steps = np.rint((np.asarray(resources, dtype=np.float64) - offset) / self.step)
        index = (steps - first_index).astype(np.int64)
        return np.where((index >= 0) & (index < len(self.targets)), index, -1)


def build_constraints(
    configs: Sequence[Mapping[str, Any]],
    metrics: Collection[str],
    resource_range: Callable[[str], tuple[float, float]],
) -> tuple[Constraint, ...]:
    """Build the constraints of a model.

    Args:
        configs: Dicts with ``metric, first, last, step``, or with ``metric, num_targets`` for so many targets from the
            smallest to the largest subnet.
        metrics: The metrics that have an estimator.
        resource_range: Metric -> resource of the smallest and of the largest subnet; asked for ``num_targets`` only.

    Raises:
        ConfigError: A key is missing or unknown, a value cannot work, or the metrics are not distinct and known.
    """
    for config in configs:
        _check_keys(config)
    check_metrics([config["metric"] for config in configs], metrics)
    return tuple(
        Constraint.spread(config["metric"], config["num_targets"], *resource_range(config["metric"]))
        if "num_targets" in config
        else Constraint.from_config(config)
        for config in configs
    )


def check_metrics(constrained: Sequence[str], metrics: Collection[str]) -> None:
    """Check that there are constraints, each on a different metric that has an estimator.

    Args:
        constrained: The metric of each constraint.
        metrics: The metrics that have an estimator.

    Raises:
        ConfigError: There are none, a metric is repeated, or a metric has no estimator.
    """
    if not constrained:
        raise ConfigError("model.constraints is empty; give at least one: metric='flops', first=70, last=300, step=10")
    for metric in constrained:
        if constrained.count(metric) > 1:
            raise ConfigError(f"model.constraints has {metric!r} twice; join them into one")
        if metric not in metrics:
            raise ConfigError(
                f"a constraint asks for the metric {metric!r}, which has no estimator; model.estimators has "
                f"{sorted(metrics)}"
            )


def _check_keys(config: Mapping[str, Any]) -> None:
    """Check the keys and types of a constraint's config."""
    spread = "num_targets" in config
    names = ["metric", "num_targets"] if spread else ["metric", "first", "last", "step"]
    for key in config:
        if key not in names:
            guess = difflib.get_close_matches(key, [*names, "num_targets"], 1)
            hint = f"did you mean {guess[0]!r}?" if guess else f"its keys are {names}"
            raise ConfigError(f"constraint {dict(config)}: unknown key {key!r}; {hint}")
    missing = [name for name in names if name not in config]
    if missing:
        raise ConfigError(
            f"constraint {dict(config)} misses {missing}; example: metric='flops', first=70, last=300, step=10"
        )
    kind, what = (int, "a whole number") if spread else ((int, float), "a number")
    for name in names[1:]:
        if isinstance(config[name], bool) or not isinstance(config[name], kind):
            raise ConfigError(f"constraint on {config['metric']}: {name} = {config[name]!r} must be {what}")
