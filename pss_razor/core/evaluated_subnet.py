"""A subnet and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pss_razor.core.errors import ConfigError
from pss_razor.core.scalars import is_number
from pss_razor.core.space.search_space import RECORD_KEYS, SearchSpace
from pss_razor.core.space.subnet import Subnet


@dataclass(frozen=True, kw_only=True)
class EvaluatedSubnet:
    """A subnet, the pool for which it was looked at, and what was measured of it.

    Args:
        subnet: The subnet.
        name: Name of its pool, such as ``"flops_150"``; or ``"largest"`` or ``"smallest"``.
        metric: Metric of its pool; None for the largest and the smallest.
        target: Target of its pool, in the metric's unit; None for the largest and the smallest.
        rank: Its place in the pool; 0 has the best score.
        score: Its score in the pool; None without pools.
        resources: Metric -> cost, in the unit of its estimator.
        metrics: Its metrics on the images that it is measured on; None as long as it is not evaluated.
        selection_metrics: Its metrics on images used only to choose; None if it is chosen by ``metrics``.
        selected_by: What chose it for an export: ``"held-out images"``, ``"test images"`` or ``"score"``.
    """

    subnet: Subnet
    name: str
    metric: str | None
    target: float | None
    resources: Mapping[str, float]
    rank: int | None = None
    score: float | None = None
    metrics: Mapping[str, Any] | None = None
    selection_metrics: Mapping[str, Any] | None = None
    selected_by: str | None = None

    @property
    def pool(self) -> tuple[str, float] | None:
        """Key of its pool; None for the largest and the smallest."""
        return None if self.metric is None or self.target is None else (self.metric, self.target)

    @property
    def measured(self) -> Mapping[str, Any]:
        """Its metrics. Only an evaluated subnet has them."""
        assert self.metrics is not None, f"{self.name} was not evaluated"
        return self.metrics

    @property
    def deciding_metrics(self) -> Mapping[str, Any]:
        """The metrics by which it is chosen: ``selection_metrics`` if there are any, else ``metrics``."""
        return self.measured if self.selection_metrics is None else self.selection_metrics

    def to_record(self, space: SearchSpace) -> dict[str, Any]:
        """The subnet as it is in a results file, without ``selected_by``; JSON-able if the metrics are."""
        record: dict[str, Any] = {
            "name": self.name,
            "metric": self.metric,
            "target": self.target,
            "rank": self.rank,
            "score": self.score,
            "resources": dict(self.resources),
        }
        for key in ("selection_metrics", "metrics"):
            if (metrics := getattr(self, key)) is not None:
                record[key] = dict(metrics)
        return {**record, **space.to_record(self.subnet)}

    @classmethod
    def from_record(cls, record: Any) -> EvaluatedSubnet:
        """The subnet of a record that :meth:`to_record` wrote.

        Args:
            record: From a file. Its choices are taken as they are; :meth:`SearchSpace.from_record` checks them.

        Raises:
            ConfigError: A field is missing or of another kind.
        """
        if not isinstance(record, Mapping):
            raise ConfigError(f"a subnet is {record!r:.100} instead of a record")

        def get(key: str, good: Any, wanted: str) -> Any:
            value = record.get(key)
            if not good(value):
                raise ConfigError(f"{key} of subnet {record.get('name')!r:.100} is {value!r:.100}; it must be {wanted}")
            return value

        def are_resources(value: Any) -> bool:
            return isinstance(value, Mapping) and all(is_number(cost) for cost in value.values())

        def is_number_or_none(value: Any) -> bool:
            return value is None or is_number(value)

        def are_metrics(value: Any) -> bool:
            return value is None or (isinstance(value, Mapping) and all(isinstance(name, str) for name in value))

        fields = {
            "name": get("name", lambda v: isinstance(v, str), "text"),
            "metric": get("metric", lambda v: v is None or isinstance(v, str), "text, or null"),
            "target": get("target", is_number_or_none, "a finite number, or null"),
            "rank": get("rank", lambda v: v is None or type(v) is int, "an integer, or null"),
            "score": get("score", is_number_or_none, "a finite number, or null"),
            "resources": get("resources", are_resources, "an object of metric -> finite number"),
            "metrics": get("metrics", are_metrics, "an object of metric -> value"),
            "selection_metrics": get("selection_metrics", are_metrics, "an object of metric -> value"),
        }
        return cls(subnet=_choices(record), **fields)


def _choices(record: Mapping[str, Any]) -> Subnet:
    tables = [record.get(key, {}) for key in RECORD_KEYS.values()]
    choices = {name: choice for table in tables if isinstance(table, Mapping) for name, choice in table.items()}
    if "resolution" in record:
        choices["resolution"] = record["resolution"]
    try:
        return Subnet(choices)
    except TypeError as error:
        raise ConfigError(f"subnet {record.get('name')!r:.100} has a choice that is none: {error}") from error
