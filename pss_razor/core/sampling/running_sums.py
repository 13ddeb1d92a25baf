"""Sums of variables' sizes as variables of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pss_razor.core.sampling.bag_tree import Derived


class RunningSums:
    """Variables that are sums of others' sizes, each of the sum before it and one size more.

    A layer whose input is a concatenation costs its input's total channels times something. With the total as a
    variable it shares no table with each of the groups that are joined. The total of many multiples of 8 has few
    values, and concatenations that begin alike, as those of a dense block do, share their sums: their interaction graph
    is a chain of sums.

    Args:
        sizes: Number of values of each variable.

    Attributes:
        sizes: The same, and then of each sum.
        derived: The sums.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)
        self.derived: dict[int, Derived] = {}
        self._known: dict[tuple[int, bytes, int, bytes], tuple[int, np.ndarray]] = {}

    def add(self, parts: Sequence[tuple[int, np.ndarray]]) -> tuple[int, np.ndarray]:
        """The variable of a sum, which is made where there is none yet.

        Args:
            parts: At least one variable, each with a size for each of its values.

        Returns:
            The variable, and the sum for each of its values.
        """
        merged: dict[int, np.ndarray] = {}
        for variable, values in parts:
            merged[variable] = merged.get(variable, 0) + values
        (total, totals), *others = sorted(merged.items())
        for variable, values in others:
            key = (total, totals.tobytes(), variable, values.tobytes())
            if key not in self._known:
                table = np.add.outer(totals, values)
                sums, places = np.unique(table, return_inverse=True)
                self._known[key] = len(self.sizes), sums
                self.derived[len(self.sizes)] = Derived((total, variable), places.reshape(table.shape))
                self.sizes.append(len(sums))
            total, totals = self._known[key]
        return total, totals
