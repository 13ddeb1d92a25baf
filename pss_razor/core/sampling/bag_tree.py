"""A tree decomposition of which variables share a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# The variable that the root eliminates: it has one value, and as an index it is the last.
ROOT = -1
# Most combinations that variables may have which are eliminated together: a draw weighs all of them.
_MOST_TOGETHER = 128


@dataclass(frozen=True)
class Derived:
    """A variable that has no choice: its value follows from two others'.

    Args:
        inputs: The two variables.
        values: Its value for each combination of theirs, int64 (values of the first, values of the second).
    """

    inputs: tuple[int, int]
    values: np.ndarray


@dataclass(frozen=True)
class Bag:
    """A variable that is eliminated, or several at once, and what they are eliminated from.

    Args:
        variables: The variables.
        separator: Their neighbours at elimination time, increasing: what they are given when they are drawn.
        children: The bags whose messages it takes, as positions in the order of elimination. Each has its separator
            inside this bag.
        scopes: Of the first one, two, … children: the variables of all their separators together, increasing.
    """

    variables: tuple[int, ...]
    separator: tuple[int, ...]
    children: tuple[int, ...]
    scopes: tuple[tuple[int, ...], ...]

    @property
    def scope(self) -> tuple[int, ...]:
        """All variables of the bag, the eliminated ones last."""
        return (*self.separator, *self.variables)

    @property
    def below(self) -> tuple[int, ...]:
        """The variables that all children's messages together depend on."""
        return self.scopes[-1] if self.scopes else ()


class BagTree:
    """Variables in the order of elimination, each with its bag; the last bag is the root of all components.

    The next variable is the one whose neighbours miss the fewest edges among themselves (min-fill), and of those the
    one of the smallest bag. That order is optimal for graphs of tree-width one and for chordal graphs, and good in
    general (Koller & Friedman, *Probabilistic Graphical Models*, 9.4.3). A derived variable goes before its inputs: so
    these are in its separator, and tell its value.

    An array over some variables is stored with one row for each combination of their values, the last variable fastest.

    Args:
        sizes: Number of values of each variable.
        scopes: Variables of each table.
        derived: The variables that follow from others.

    Attributes:
        bags: The bags, children before parents.
    """

    def __init__(
        self, sizes: Sequence[int], scopes: Iterable[Sequence[int]], derived: Mapping[int, Derived] | None = None
    ) -> None:
        self.sizes = dict(enumerate(sizes)) | {ROOT: 1}
        self.derived = dict(derived or {})
        neighbours: dict[int, set[int]] = {variable: set() for variable in range(len(sizes))}
        for scope in (*scopes, *((variable, *one.inputs) for variable, one in self.derived.items())):
            for variable in scope:
                neighbours[variable] |= set(scope) - {variable}
        separators: dict[int, tuple[int, ...]] = {}
        while neighbours:
            inputs = {v for variable, one in self.derived.items() if variable in neighbours for v in one.inputs}
            variable = min(
                neighbours.keys() - inputs,
                key=lambda v: (self._fill(neighbours, v), self.count((v, *neighbours[v])), v),
            )
            around = neighbours.pop(variable)
            for other in around:
                neighbours[other] = (neighbours[other] | around) - {variable, other}
            separators[variable] = tuple(sorted(around))
        separators[ROOT] = ()
        self._rank = {variable: rank for rank, variable in enumerate(separators)}
        children: dict[int, list[int]] = {variable: [] for variable in separators}
        weights = dict.fromkeys(separators, 1)
        for variable, separator in separators.items():
            if variable != ROOT:
                parent = self._first(separator)
                children[parent].append(variable)
                weights[parent] += weights[variable]
        for below in children.values():
            # Small scopes first keep what is stored small; large subtrees first keep what is split off small.
            below.sort(key=lambda child: (self.count(separators[child]), separators[child], -weights[child]))
        self._hang_below_leaves(children, separators)
        together = self._join(children, separators)
        self.bags: list[Bag] = []
        self._position: dict[int, int] = {}
        for variable in self._upwards(children):
            order = [self._position[child] for child in children[variable]]
            parts = [separators[child] for child in children[variable]]
            unions = [tuple(sorted(set().union(*parts[: n + 1]))) for n in range(len(parts))]
            self._position |= dict.fromkeys(together[variable], len(self.bags))
            self.bags.append(Bag(together[variable], separators[variable], tuple(order), tuple(unions)))

    @staticmethod
    def _fill(neighbours: dict[int, set[int]], variable: int) -> int:
        around = neighbours[variable]
        return sum(len(around - neighbours[other]) - 1 for other in around)

    @staticmethod
    def _hang_below_leaves(children: dict[int, list[int]], separators: Mapping[int, tuple[int, ...]]) -> None:
        """Let a leaf take the message of a sibling whose separator is part of its own.

        The bag above has one child less, whose message would have to be convolved with the others'. For the leaf, to
        take a message is to add up shifted rows.
        """
        leaves = {variable for variable, below in children.items() if not below}
        for below in list(children.values()):
            kept: list[int] = []
            for child in below:
                fits = [other for other in kept if set(separators[other]) <= set(separators[child])]
                if child in leaves and fits:
                    kept.remove(fits[-1])
                    children[child].append(fits[-1])
                kept.append(child)
            below[:] = kept

    def _join(
        self, children: dict[int, list[int]], separators: Mapping[int, tuple[int, ...]]
    ) -> dict[int, tuple[int, ...]]:
        """Let a variable be eliminated together with an only child that depends on all of its bag.

        That takes no more time, and the child's message, which has a row for each value of the variable, is not needed.

        Returns:
            For each variable that is left in ``children``, those that its bag eliminates.
        """
        together: dict[int, tuple[int, ...]] = {}
        for variable in self._upwards(children):
            together[variable] = (variable,)
            if len(children[variable]) != 1 or variable == ROOT:
                continue
            (child,) = children[variable]
            joined = (variable, *together[child])
            depends_on_all = set(separators[child]) == {*separators[variable], variable}
            if depends_on_all and not self.derived.keys() & set(joined) and self.count(joined) <= _MOST_TOGETHER:
                together[variable] = joined
                children[variable] = children.pop(child)
                del together[child]
        return together

    @staticmethod
    def _upwards(children: Mapping[int, Sequence[int]]) -> list[int]:
        """The variables, children before parents."""
        order, left = list[int](), [ROOT]
        while left:
            order.append(left.pop())
            left += children[order[-1]]
        return order[::-1]

    def _first(self, scope: Iterable[int]) -> int:
        """The variable of a scope that is eliminated first, the root's of none."""
        return min(scope, key=self._rank.__getitem__, default=ROOT)

    def holder(self, scope: Iterable[int]) -> int:
        """The position of the bag that holds a table over ``scope``: where the first of its variables is eliminated."""
        return self._position[self._first(scope)]

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
        """Smallest and largest sum of tables, one a bag, each (rows of the separator, choices)."""
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
        """For each row of a bag's separator and choice of its variables, the row over ``part`` (rows, choices)."""
        return self.choices(bag, self.rows(part, bag.scope))

    def choices(self, bag: Bag, array: np.ndarray) -> np.ndarray:
        """Of numbers for each row over a bag's scope, those of its variables' choices (rows of the separator, choices).

        A derived variable has one choice, which is another value in each row; others have all their values.
        """
        array = array.reshape(-1, self.count(bag.variables))
        derived = self.derived_of(bag)
        if derived is None:
            return array
        shape = [self.sizes[variable] for variable in bag.separator]
        values = np.broadcast_to(self.spread(derived.values, derived.inputs, bag.separator), shape)
        return np.take_along_axis(array, values.reshape(-1, 1), axis=1)

    def count_choices(self, bag: Bag) -> int:
        """Number of choices that a bag's variables have once its separator is known."""
        return self.count(bag.variables) if self.derived_of(bag) is None else 1

    def derived_of(self, bag: Bag) -> Derived | None:
        """How the variable of a bag follows from others, None if it does not."""
        return self.derived.get(bag.variables[0])
