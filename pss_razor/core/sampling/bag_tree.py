"""A tree decomposition of which variables share a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# The variable that the root eliminates: it has one value, and as an index it is the last.
ROOT = -1


@dataclass(frozen=True)
class Bag:
    """A variable that is eliminated, and what it is eliminated from.

    Args:
        variable: The variable.
        separator: Its neighbours at elimination time, increasing: what it is given when it is drawn.
        children: The bags whose messages it takes, as positions in the order of elimination. Each has its separator
            inside this bag.
        scopes: Of the first one, two, … children: the variables of all their separators together, increasing.
    """

    variable: int
    separator: tuple[int, ...]
    children: tuple[int, ...]
    scopes: tuple[tuple[int, ...], ...]

    @property
    def scope(self) -> tuple[int, ...]:
        """All variables of the bag, the eliminated one last."""
        return (*self.separator, self.variable)

    @property
    def below(self) -> tuple[int, ...]:
        """The variables that all children's messages together depend on."""
        return self.scopes[-1] if self.scopes else ()


class BagTree:
    """Variables in the order of elimination, each with its bag; the last bag is the root of all components.

    The next variable is the one whose neighbours miss the fewest edges among themselves (min-fill), and of those the
    one of the smallest bag. That order is optimal for graphs of tree-width one and for chordal graphs, and good in
    general (Koller & Friedman, *Probabilistic Graphical Models*, 9.4.3).

    An array over some variables is stored with one row for each combination of their values, the last variable fastest.

    Args:
        sizes: Number of values of each variable.
        scopes: Variables of each table.

    Attributes:
        bags: The bags, children before parents.
    """

    def __init__(self, sizes: Sequence[int], scopes: Iterable[Sequence[int]]) -> None:
        self.sizes = dict(enumerate(sizes)) | {ROOT: 1}
        neighbours: dict[int, set[int]] = {variable: set() for variable in range(len(sizes))}
        for scope in scopes:
            for variable in scope:
                neighbours[variable] |= set(scope) - {variable}
        separators: dict[int, tuple[int, ...]] = {}
        while neighbours:
            variable = min(neighbours, key=lambda v: (self._fill(neighbours, v), self.count((v, *neighbours[v])), v))
            around = neighbours.pop(variable)
            for other in around:
                neighbours[other] = (neighbours[other] | around) - {variable, other}
            separators[variable] = tuple(sorted(around))
        separators[ROOT] = ()
        self._position = {variable: position for position, variable in enumerate(separators)}
        children: list[list[int]] = [[] for _ in separators]
        weights = [1] * len(separators)
        for position, (variable, separator) in enumerate(separators.items()):
            if variable != ROOT:
                parent = self.holder(separator)
                children[parent].append(position)
                weights[parent] += weights[position]
        self.bags: list[Bag] = []
        for (variable, separator), below in zip(separators.items(), children, strict=True):
            parts = {child: self.bags[child].separator for child in below}
            # Small scopes first keep what is stored small; large subtrees first keep what is split off small.
            order = sorted(below, key=lambda child: (self.count(parts[child]), parts[child], -weights[child]))
            unions = [tuple(sorted(set().union(*(parts[c] for c in order[: n + 1])))) for n in range(len(order))]
            self.bags.append(Bag(variable, separator, tuple(order), tuple(unions)))

    @staticmethod
    def _fill(neighbours: dict[int, set[int]], variable: int) -> int:
        around = neighbours[variable]
        return sum(len(around - neighbours[other]) - 1 for other in around)

    def holder(self, scope: Iterable[int]) -> int:
        """The position of the bag that holds a table over ``scope``: where the first of its variables is eliminated."""
        return min((self._position[variable] for variable in scope), default=len(self._position) - 1)

    def count(self, scope: Iterable[int]) -> int:
        """Number of combinations of the variables' values."""
        return math.prod(self.sizes[variable] for variable in scope)

    def strides(self, scope: Sequence[int]) -> np.ndarray:
        """How many rows further the next value of each variable is, int64 (n,)."""
        return np.array([self.count(scope[place + 1 :]) for place in range(len(scope))], dtype=np.int64)

    def spread(self, table: np.ndarray, variables: Sequence[int], scope: Sequence[int]) -> np.ndarray:
        """A table over some variables, with the axes of a scope that has them all; size one where it has others."""
        order = sorted(range(len(variables)), key=lambda axis: scope.index(variables[axis]))
        return table.transpose(order).reshape([self.sizes[v] if v in variables else 1 for v in scope])

    def rows(self, part: Sequence[int], scope: Sequence[int]) -> np.ndarray:
        """For each row over a scope, the row over a part of its variables, int64 (rows,)."""
        rows = np.arange(self.count(part)).reshape([self.sizes[variable] for variable in part])
        shape = [self.sizes[variable] for variable in scope]
        return np.broadcast_to(self.spread(rows, part, scope), shape).ravel()

    def extremes(self, tables: Sequence[np.ndarray]) -> tuple[float, float]:
        """Smallest and largest sum of tables, one a bag, each (rows of the separator, values of the variable)."""
        low, high = ([np.zeros(0)] * len(self.bags) for _ in range(2))
        for position, (bag, table) in enumerate(zip(self.bags, tables, strict=True)):
            for ends, reduce in ((low, np.min), (high, np.max)):
                total = table.astype(np.float64)
                for child, rows in zip(bag.children, self.child_rows[position], strict=True):
                    total = total + ends[child][rows]
                ends[position] = reduce(total, axis=1)
        return float(low[-1][0]), float(high[-1][0])

    @cached_property
    def child_rows(self) -> list[list[np.ndarray]]:
        """For each bag and child, the child's row of each of the bag's rows and values (rows, values)."""
        return [[self.message_rows(bag, self.bags[child].separator) for child in bag.children] for bag in self.bags]

    def message_rows(self, bag: Bag, part: Sequence[int]) -> np.ndarray:
        """For each row of a bag's separator and value of its variable, the row over ``part`` (rows, values)."""
        return self.rows(part, bag.scope).reshape(-1, self.sizes[bag.variable])
