"""The search space: named dimensions with their values and their own distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pss_razor.core.errors import ConfigError
from pss_razor.core.space.subnet import Subnet

# How a record on disk names the choices of each kind of dimension; a resolution is one value, the others are tables.
RECORD_KEYS = {"channels": "channels", "op": "ops", "value": "values"}


@dataclass(frozen=True)
class Dimension:
    """One search group.

    Args:
        name: Name of the search group.
        kind: ``"channels"``, ``"resolution"``, ``"op"`` or ``"value"``.
        values: What can be chosen, in increasing order where there is one: the first is the smallest subnet's, the
            last the largest's.
        probabilities: Probability of each value in the space's own distribution; uniform if None.
        used_from: Name of another dimension, and the least of its values with which this one makes a difference: the
            width inside a block that a smaller depth skips. None if it always does.
    """

    name: str
    kind: str
    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None
    used_from: tuple[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.kind != "resolution" and self.kind not in RECORD_KEYS:
            kinds = ["resolution", *RECORD_KEYS]
            raise ConfigError(f"search group {self.name!r} has the unknown kind {self.kind!r}; choose from {kinds}")
        if not self.values:
            raise ConfigError(f"search group {self.name!r} has no choices; give it at least one")
        if len(set(self.values)) != len(self.values):
            raise ConfigError(f"search group {self.name!r} lists a choice twice: {list(self.values)}")
        if self.probabilities is None:
            object.__setattr__(self, "probabilities", (1.0 / len(self.values),) * len(self.values))
        assert self.probabilities is not None
        possible = all(p > 0 for p in self.probabilities) and abs(sum(self.probabilities) - 1.0) <= 1e-9
        if len(self.probabilities) != len(self.values) or not possible:
            raise ConfigError(
                f"search group {self.name!r}: {len(self.values)} choices need as many positive probabilities, sum 1"
            )

    @cached_property
    def _index(self) -> dict[Any, int]:
        return {value: index for index, value in enumerate(self.values)}

    def index(self, value: Any) -> int:
        """Position of ``value`` among the choices.

        Raises:
            ConfigError: ``value`` is not a choice of this dimension.
        """
        try:
            return self._index[value]
        except (KeyError, TypeError):
            raise ConfigError(
                f"{self.name} = {value!r:.100} is not in the search space; choose from {list(self.values)}"
            ) from None


class SearchSpace:
    """An ordered set of independent dimensions.

    Many subnets at once are an integer array (N, D): the index of the value chosen in each dimension. Where a dimension
    makes no difference, a subnet has its first choice, so that a network is one subnet; see :meth:`canonical`.

    Args:
        dimensions: The search groups, names unique.
    """

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.dimensions = tuple(dimensions)
        self.names = tuple(dimension.name for dimension in dimensions)
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"search groups need distinct names, got {list(self.names)}")
        resolutions = [dimension.name for dimension in self.dimensions if dimension.kind == "resolution"]
        if len(resolutions) > 1:
            raise ConfigError(f"a search space has one resolution at most, got {resolutions}")
        self._position = {name: position for position, name in enumerate(self.names)}
        self._conditions = []
        for column, dimension in enumerate(self.dimensions):
            if dimension.used_from is not None:
                name, least = dimension.used_from
                if name not in self._position or name == dimension.name:
                    raise ConfigError(f"search group {dimension.name!r} is used from a value of {name!r}, not another")
                on = self._position[name]
                self._conditions.append((column, on, self.dimensions[on].index(least)))

    def __len__(self) -> int:
        return len(self.dimensions)

    def __repr__(self) -> str:
        return f"SearchSpace({', '.join(f'{d.name}: {list(d.values)}' for d in self.dimensions)})"

    def position(self, name: str) -> int:
        """Column of dimension ``name`` in index arrays."""
        return self._position[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each dimension."""
        return tuple(len(dimension.values) for dimension in self.dimensions)

    @property
    def size(self) -> int:
        """Number of combinations; several are one subnet where not all dimensions always make a difference."""
        size = 1
        for count in self.shape:
            size *= count
        return size

    @property
    def has_equal_combinations(self) -> bool:
        """Whether there are combinations that are one subnet."""
        return bool(self._conditions)

    def canonical(self, indices: np.ndarray) -> np.ndarray:
        """Rows of indices (N, D) with the first choice where a dimension makes no difference: one row a subnet."""
        if not self._conditions:
            return indices
        result = indices.copy()
        for column, on, least in self._conditions:
            result[indices[:, on] < least, column] = 0
        return result

    @property
    def largest(self) -> Subnet:
        """The subnet of the last value of every dimension."""
        return Subnet({dimension.name: dimension.values[-1] for dimension in self.dimensions})

    @property
    def smallest(self) -> Subnet:
        """The subnet of the first value of every dimension."""
        return Subnet({dimension.name: dimension.values[0] for dimension in self.dimensions})

    def encode(self, subnets: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Subnets as indices, int64 (N, D).

        Raises:
            ConfigError: A subnet misses a dimension, has one too many, or a value outside the space.
        """
        for subnet in subnets:
            if set(subnet) != set(self.names):
                raise ConfigError(
                    f"a subnet chooses for {sorted(subnet)}, but the search groups are {sorted(self.names)}"
                )
        rows = [[dimension.index(subnet[dimension.name]) for dimension in self.dimensions] for subnet in subnets]
        return np.array(rows, dtype=np.int64).reshape(len(subnets), len(self))

    def decode(self, indices: np.ndarray) -> Subnet:
        """The subnet of one row of indices, shape (D,)."""
        pairs = zip(self.dimensions, self.canonical(indices[None])[0].tolist(), strict=True)
        return Subnet({dimension.name: dimension.values[index] for dimension, index in pairs})

    def enumerate(self) -> np.ndarray:
        """All subnets as indices, int64 (size, D), the last dimension fastest. The caller bounds ``size`` first."""
        return np.stack(np.unravel_index(np.arange(self.size), self.shape), axis=1).astype(np.int64)

    def probabilities(self, indices: np.ndarray) -> np.ndarray:
        """Probability of each row of ``indices`` (N, D) in the space's own distribution, float64 (N,)."""
        result = np.ones(len(indices))
        for column, dimension in enumerate(self.dimensions):
            result *= np.asarray(dimension.probabilities)[indices[:, column]]
        return result

    def draw(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Indices of ``count`` subnets drawn from the space's own distribution, with shape (N, D)."""
        columns = [generator.choice(len(d.values), count, p=np.asarray(d.probabilities)) for d in self.dimensions]
        return np.stack(columns, axis=1)

    def to_record(self, subnet: Mapping[str, Any]) -> dict[str, Any]:
        """A subnet as JSON-able choices by kind: ``{"channels": {"stem": 32, …}, "resolution": 224}``."""
        record: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.kind == "resolution":
                record["resolution"] = subnet[dimension.name]
            else:
                record.setdefault(RECORD_KEYS[dimension.kind], {})[dimension.name] = subnet[dimension.name]
        return record

    def from_record(self, record: Mapping[str, Any]) -> Subnet:
        """The subnet of a record written by :meth:`to_record`; other keys of the record are left alone.

        Raises:
            ConfigError: A choice is missing or outside this space.
        """
        choices: dict[str, Any] = {}
        for dimension in self.dimensions:
            table = record if dimension.kind == "resolution" else record.get(RECORD_KEYS[dimension.kind], {})
            key = "resolution" if dimension.kind == "resolution" else dimension.name
            if not isinstance(table, Mapping) or key not in table:
                raise ConfigError(f"a subnet record has no choice for {dimension.name!r}: {dict(record)!s:.300}")
            value = table[key]
            dimension.index(value)
            choices[dimension.name] = value
        return self.decode(self.encode([choices])[0]) if self._conditions else Subnet(choices)
