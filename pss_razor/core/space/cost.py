"""Resources of subnets as sums of small tables, so that N candidates cost a few array look-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters

import numpy as np

from pss_razor.core.space.search_space import SearchSpace


@dataclass(frozen=True)
class CostTerm:
    """A part of the cost that depends on a few dimensions only.

    Args:
        dimensions: Names of those dimensions, in the order of the table's axes.
        table: Cost for each combination of their values; one axis a dimension, none for a constant.
    """

    dimensions: tuple[str, ...]
    table: np.ndarray


class AdditiveCost:
    """The sum of :class:`CostTerm` over a search space: the form that FLOPs, parameters and table latencies share.

    Terms over the same dimensions are merged, and terms whose dimensions are part of another's are folded into it.

    Args:
        space: The search space.
        terms: Parts of the cost.
        scale: Factor from the tables' unit to the unit of :meth:`__call__`.
    """

    def __init__(self, space: SearchSpace, terms: Sequence[CostTerm], scale: float = 1.0) -> None:
        self.space = space
        self.scale = scale
        merged: dict[tuple[int, ...], np.ndarray] = {}
        for term in terms:
            columns = [space.position(name) for name in term.dimensions]
            expected = tuple(space.shape[column] for column in columns)
            if term.table.shape != expected:
                raise ValueError(f"a table over {term.dimensions} has shape {term.table.shape}, not {expected}")
            key = tuple(sorted(set(columns)))
            # Sorts the axes, and takes the diagonal where a dimension is named twice.
            axes = "".join(ascii_letters[key.index(column)] for column in columns)
            table = np.einsum(f"{axes}->{ascii_letters[: len(key)]}", np.array(term.table, dtype=np.float64))
            merged[key] = merged[key] + table if key in merged else table
        for key in sorted(merged, key=len):
            hosts = [other for other in merged if len(other) > len(key) and set(key) <= set(other)]
            if hosts:
                table = merged.pop(key)
                host = hosts[0]
                shape = [space.shape[column] if column in key else 1 for column in host]
                merged[host] = merged[host] + table.reshape(shape)
        self.terms = tuple((columns, np.ascontiguousarray(table)) for columns, table in sorted(merged.items()))

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Cost of each subnet.

        Args:
            indices: Value indices, (N, D), as :meth:`SearchSpace.encode` makes them.

        Returns:
            float64 (N,).
        """
        total = np.zeros(len(indices))
        for columns, table in self.terms:
            total += table[tuple(indices[:, column] for column in columns)]
        return total * self.scale
