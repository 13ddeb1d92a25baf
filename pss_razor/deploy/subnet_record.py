"""What is known of a deployed subnet besides its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pss_razor.core import ExportError, is_number
from pss_razor.static.static_net import MAX_RESOLUTION, show

# Fields that a file has only where there are such search groups.
OPTIONAL_CHOICES = {"ops", "values"}
_MAX_NAME_LENGTH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubnetRecord:
    """A subnet as the runtime and its users see it.

    Attributes:
        name: Unique among the subnets that are deployed together, such as "flops_150".
        metric: Metric of the pool it comes from, such as "flops".
        target: The pool's target, in the metric's unit.
        resources: Metric -> cost of the subnet, in the metric's unit (latencies in microseconds).
        accuracy: Measured accuracy, in percent; None if it was not measured.
        channels: Search group -> channels.
        resolution: Height and width of the input, in pixels.
        ops: Search group -> name of the chosen op.
        values: Search group -> the chosen value, for groups of any other kind.

    ``channels``, ``ops``, ``values`` and ``resolution`` are what :meth:`SearchSpace.to_record` makes of a subnet, and
    :meth:`SearchSpace.from_record` reads. Files of version 0.1 have ops and values among the channels.

    Raises:
        ExportError: A field has a wrong type or value; the message names it.
    """

    name: str
    metric: str
    target: float
    resources: Mapping[str, float]
    accuracy: float | None
    channels: Mapping[str, Any]
    resolution: int
    ops: Mapping[str, str] = dataclasses.field(default_factory=dict)
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        def check(field: str, good: bool, wanted: str) -> None:
            if not good:
                raise ExportError(f"{field} is {show(getattr(self, field))}; it must be {wanted}")

        good = isinstance(self.name, str) and 0 < len(self.name) <= _MAX_NAME_LENGTH
        check("name", good, f"text of at most {_MAX_NAME_LENGTH} characters")
        check("metric", isinstance(self.metric, str), "text")
        check("target", is_number(self.target), "a finite number")
        check("accuracy", self.accuracy is None or is_number(self.accuracy), "a finite number or None")
        costs = self.resources
        good = isinstance(costs, Mapping) and all(isinstance(k, str) and is_number(v) for k, v in costs.items())
        check("resources", good, "a mapping from metrics to finite numbers")
        for field in OPTIONAL_CHOICES | {"channels"}:
            groups = getattr(self, field)
            good = isinstance(groups, Mapping) and all(
                isinstance(k, str) and (isinstance(v, str) or is_number(v)) for k, v in groups.items()
            )
            check(field, good, "a mapping from search groups to choices")
        good = type(self.resolution) is int and 1 <= self.resolution <= MAX_RESOLUTION
        check("resolution", good, f"an integer from 1 to {MAX_RESOLUTION}")

    @classmethod
    def from_record(cls, record: Mapping[str, Any], **known: Any) -> SubnetRecord:
        """Makes it from the record of an evaluated subnet, an entry of a manifest, or a subnet of a bundle.

        Args:
            record: As :meth:`EvaluatedSubnet.to_record` makes it; other keys are ignored.
            **known: Fields that ``record`` lacks, or that replace its own.

        Raises:
            ExportError: A field is missing, or has a wrong type or value.
        """
        fields = [field.name for field in dataclasses.fields(SubnetRecord)]
        values = {**{name: record[name] for name in fields if name in record}, **known}
        missing = [name for name in fields if name not in values and name not in OPTIONAL_CHOICES]
        if missing:
            raise ExportError(f"{missing[0]} is missing")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(SubnetRecord)}
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in values.items()
            if value or name not in OPTIONAL_CHOICES
        }
