"""The distribution of a sum of tables along a tree of bags, and exact draws from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pss_razor.core.sampling.bag_tree import BagTree, Derived
from pss_razor.core.sampling.binned_sampler import BinnedDistribution, cumulate

# Numbers that are worked on together, eight bytes each: they stay in the processor's cache.
_CHUNK = 2**17

Terms = Sequence[tuple[tuple[int, ...], np.ndarray]]


@dataclass(frozen=True)
class _Rows:
    """Which row of an array over a scope each combination of values has.

    Args:
        strides: How many rows further the next value of each variable is.
        renamed: If rows are looked up in another array, which row of that one each is.
    """

    strides: list[tuple[int, int]]
    renamed: np.ndarray | None = None

    def find(self, values: np.ndarray) -> np.ndarray:
        """The rows (N,) of values (variables, N); a variable without a value yet counts as 0."""
        rows = sum(
            (values[variable] * stride for variable, stride in self.strides), np.zeros(values.shape[1], dtype=np.int64)
        )
        return rows if self.renamed is None else self.renamed[rows]


class _Split(NamedTuple):
    """The rows of a child's message, and of what the children before it have together."""

    child: _Rows
    before: _Rows


class _Plan(NamedTuple):
    """Where a draw looks at a bag.

    Args:
        given: The row of its separator.
        below: The row of what its children have together, for the first choice.
        further: How many rows further that of each choice is (choices, 1).
        splits: Of all children but the first.
        derived: How its variable follows from others, None if it does not.
    """

    given: _Rows
    below: _Rows
    further: np.ndarray
    splits: list[_Split]
    derived: Derived | None


class TreeDistribution(BinnedDistribution):
    """A sum of tables at one resolution, in bins, with the messages along the tree.

    The message of a bag tells, for every combination of its separator, the probability of each binned cost of
    everything that is eliminated up to it: its children's messages are convolved, shifted by the bag's own table, and
    averaged over the variable. Where there are several children, the convolutions of the first two, three, … are kept
    too. A derived variable without a table only renames rows: what its children have together is its message, of which
    the rows are looked up.

    A draw begins with the bin of the whole and goes back through the messages: the values of a bag's separator and the
    bin of its subtree are known, so its variable is drawn by what its children can add up to, and then the bin is
    divided among the children, the last one first. All of this is exact in whole bins. Messages are sums and products
    of numbers that are not negative, never differences, so probabilities keep their relative precision in both tails;
    this is also why nothing is convolved by FFT.

    All tables are moved to a minimum of zero; so nothing above the highest bin that is asked for needs to be kept. From
    the top it is the other way about: bins count what is missing to the most that a combination could cost.

    Args:
        tree: The variables' tree decomposition; derived variables are numbered after the others.
        terms: The tables, each with its variables.
        probabilities: Probabilities of each variable's values, of those that are not derived.
        width: Width of a bin, in the unit of the tables.
        needed: Least and most cost about which the distribution is asked.
        from_top: Whether bins are counted from the top.
    """

    def __init__(
        self,
        tree: BagTree,
        terms: Terms,
        probabilities: Sequence[np.ndarray],
        width: float,
        needed: tuple[float, float],
        from_top: bool = False,
    ) -> None:
        self.tree = tree
        self.from_top = from_top
        tables = [np.zeros([tree.sizes[variable] for variable in bag.scope]) for bag in tree.bags]
        constant = magnitude = 0.0
        for variables, table in _signed(terms, from_top):
            holder = tree.holder(variables)
            tables[holder] += tree.spread(table - table.min(), variables, tree.bags[holder].scope) / width
            constant += float(table.min())
            magnitude += float(np.abs(table).max())
        tables = [tree.choices(bag, table) for bag, table in zip(tree.bags, tables, strict=True)]
        steps = [np.rint(table) for table in tables]
        low, high = tree.extremes(tables)
        bounds = _turned((constant + low * width, constant + high * width), from_top)
        rounding = tree.extremes([table - step for table, step in zip(tables, steps, strict=True)])
        super().__init__(constant, width, bounds, rounding, magnitude, np.zeros((2, 0)))
        # As many bins as are needed; none where everything costs more than that.
        self._bins = max(self.windows(*needed)[0][1] + 1, 0)
        if self._bins:
            self.steps = [np.minimum(step, self._bins).astype(np.int64) for step in steps]
            # Of each bag's choices: their values (variables, choices), and weights.
            self._values = [
                np.indices([tree.sizes[variable] for variable in bag.variables]).reshape(len(bag.variables), -1)
                for bag in tree.bags
            ]
            weights = [*probabilities, *[np.ones(1)] * (len(tree.derived) + 1)]
            self._weights = [reduce(np.outer, [weights[v] for v in bag.variables]).ravel() for bag in tree.bags]
            self._renamed: dict[int, np.ndarray] = {}
            self._rename()
            numbers = self._collect([np.ones(len(weights)) for weights in self._weights])[0][-1]
            self._messages, self._joint = self._collect(self._weights)
            self.totals = np.concatenate((self._messages[-1], numbers))

    @staticmethod
    def stored_bytes(
        tree: BagTree, terms: Terms, width: float, needed: tuple[float, float], from_top: bool = False
    ) -> int:
        """About how much memory a distribution would keep, to be asked before it is made; arguments as there."""
        highest = _turned(needed, from_top)[1]
        constant, heights = 0.0, [1.0] * len(tree.bags)
        for variables, table in _signed(terms, from_top):
            heights[tree.holder(variables)] += (table.max() - table.min()) / width
            constant += float(table.min())
        top = max((highest - constant) / width + len(tree.bags) + 1, 0)
        total, lengths = 0, [0] * len(tree.bags)
        without_table = {position for position, height in enumerate(heights) if height == 1.0}
        for position, bag in enumerate(tree.bags):
            length = 1
            for place, (child, scope) in enumerate(zip(bag.children, bag.scopes, strict=True)):
                length = math.ceil(min(length + lengths[child], top))
                total += tree.count(scope) * length if place else 0
            renames = tree.derived_of(bag) is not None and position in without_table
            lengths[position] = math.ceil(min(length + (0 if renames else heights[position]), top))
            kept = 1 if renames else lengths[position]
            total += tree.count(bag.separator) * (kept + tree.count_choices(bag))
        return 8 * total

    def interval(self, low: float, high: float, finer: int = 1) -> tuple[float, float, float]:
        """See the base class."""
        return super().interval(*_turned((low, high), self.from_top), finer)

    def likely(self, low: float, high: float) -> tuple[int, int]:
        """The bins of costs from ``low`` to ``high`` if nothing but the sum were rounded."""
        first, last, _ = self.interval(low, high)
        return math.ceil(first), math.floor(last)

    @cached_property
    def numbers_a_draw(self) -> int:
        """See the base class: one for the whole, and one for each choice and each split."""
        choices = sum(step.shape[1] > 1 for step in self.steps)
        return 1 + choices + sum(len(plan.splits) for plan in self._plans)

    def draw(self, window: tuple[int, int], numbers: np.ndarray) -> np.ndarray:
        """See the base class."""
        first, of_each = max(window[0], 0), iter(numbers)
        cumulative = np.cumsum(self.totals[0, first : max(window[1] + 1, 0)])
        bins = first + np.searchsorted(cumulative[:-1], next(of_each) * cumulative[-1], side="right")
        return self._walk(bins, of_each)

    def list_all(self, window: tuple[int, int]) -> np.ndarray:
        """The values (N, n) of all combinations in a window; :meth:`mass` tells how many they are.

        No partial combination is looked at that is not part of one of them, so that is also the bound on the work.
        """
        first = max(window[0], 0)
        return self._walk(first + np.flatnonzero(self.totals[1, first : max(window[1] + 1, 0)]), None)

    def _collect(self, weights: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        """Messages (rows of the separator, bins) of all bags, and of each bag its first 1, 2, … children together."""
        tree, messages, joint = self.tree, list[np.ndarray](), list[list[np.ndarray]]()
        for position, (bag, step) in enumerate(zip(tree.bags, self.steps, strict=True)):
            below = np.ones((1, 1))
            joint.append([])
            for place, (child, scope) in enumerate(zip(bag.children, bag.scopes, strict=True)):
                message = messages[child]
                if place:
                    left = self._joint_rows(position, place - 1, tree.rows(bag.scopes[place - 1], scope))
                    right = self._message_rows(child, tree.rows(tree.bags[child].separator, scope))
                    below = _convolve(below, left, message, right, self._bins)
                else:
                    below = message
                joint[-1].append(below)
            if position not in self._renamed:
                rows = self._joint_rows(position, -1, tree.message_rows(bag, bag.below))
                below = _eliminate(below, rows, step, weights[position], self._bins)
            messages.append(below)
        return messages, joint

    def _rename(self) -> None:
        """Of bags of derived variables without a table: for each row of the separator, the row of the message."""
        for position, (bag, step) in enumerate(zip(self.tree.bags, self.steps, strict=True)):
            if self.tree.derived_of(bag) is not None and not step.any():
                rows = self.tree.message_rows(bag, bag.below)
                self._renamed[position] = self._joint_rows(position, -1, rows).ravel()

    def _message_rows(self, position: int, rows: np.ndarray) -> np.ndarray:
        """Where rows over a bag's separator are in its message."""
        return self._renamed[position][rows] if position in self._renamed else rows

    def _joint_rows(self, position: int, place: int, rows: np.ndarray) -> np.ndarray:
        """Where rows over a bag's scope of its first children are in what these have together."""
        children = self.tree.bags[position].children
        return self._message_rows(children[0], rows) if children and place in (0, -len(children)) else rows

    @cached_property
    def _plans(self) -> list[_Plan]:
        """Of each bag, where a draw looks."""
        tree, plans = self.tree, []
        for position, bag in enumerate(tree.bags):
            strides = dict(zip(bag.below, tree.strides(bag.below).tolist(), strict=True))
            further = [strides.get(variable, 0) for variable in bag.variables] @ self._values[position]
            splits = [
                _Split(
                    self._rows_of(tree.bags[child].separator, self._renamed.get(child)),
                    self._rows_of(scope, self._renamed.get(bag.children[0]) if place == 0 else None),
                )
                for place, (child, scope) in enumerate(zip(bag.children[1:], bag.scopes, strict=False))
            ]
            given, below = self._rows_of(bag.separator), self._rows_of(bag.below)
            plans.append(_Plan(given, below, further[:, None], splits, tree.derived_of(bag)))
        return plans

    def _rows_of(self, scope: Sequence[int], renamed: np.ndarray | None = None) -> _Rows:
        return _Rows(list(zip(scope, self.tree.strides(scope).tolist(), strict=True)), renamed)

    def _walk(self, totals: np.ndarray, numbers: Iterator[np.ndarray] | None) -> np.ndarray:
        """From the root down, one combination (N, n) for each total bin (N,), drawn; all of them without numbers."""
        tree = self.tree
        # Derived variables come after the others; the last row is the root's, whose only value is 0.
        values: np.ndarray = np.zeros((len(tree.sizes), len(totals)), dtype=np.int64)
        amounts: np.ndarray = np.zeros((len(tree.bags), len(totals)), dtype=np.int64)
        amounts[-1] = totals
        for position in reversed(range(len(tree.bags))):
            bag, derived = tree.bags[position], self._plans[position].derived
            if derived is None:
                kept, chosen, left = self._choose(position, values, amounts[position], numbers)
                values, amounts = values[:, kept], amounts[:, kept]
                values[list(bag.variables)] = self._values[position].take(chosen, axis=1)
            else:
                left = amounts[position]
                if position not in self._renamed:
                    left = left - self.steps[position][self._plans[position].given.find(values), 0]
                values[bag.variables[0]] = derived.values[tuple(values[list(derived.inputs)])]
            for place in reversed(range(1, len(bag.children))):
                kept, part = self._split(position, place, values, left, numbers)
                values, amounts, left = values[:, kept], amounts[:, kept], left[kept] - part
                amounts[bag.children[place]] = part
            if bag.children:
                amounts[bag.children[0]] = left
        return values[: len(tree.sizes) - 1 - len(tree.derived)].T

    def _choose(
        self, position: int, values: np.ndarray, amount: np.ndarray, numbers: Iterator[np.ndarray] | None
    ) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray]:
        """A bag's choice, given its separator and the bin (N,) of its subtree: as :func:`_select` has it.

        The third is the bin that is left for its children.
        """
        plan, step, joint = self._plans[position], self.steps[position], self._joint[position]
        given = plan.given.find(values)
        if step.shape[1] == 1:
            return slice(None), np.zeros(len(amount), dtype=np.int64), amount - step[given, 0]
        below = joint[-1] if joint else np.ones((1, 1))
        rows = plan.below.find(values)

        def weigh(chunk: slice) -> np.ndarray:
            own = self._joint_rows(position, -1, plan.further + rows[chunk])
            bins = np.subtract(amount[chunk], step[given[chunk]].T, order="C")
            weights = below.take(own * below.shape[1] + bins, mode="clip")
            # What is negative is a very large number without a sign: outside, too.
            weights[bins.view(np.uint64) >= below.shape[1]] = 0.0
            return np.multiply(weights, self._weights[position][:, None], out=weights)

        kept, chosen = _select(len(amount), step.shape[1], weigh, numbers)
        return kept, chosen, amount[kept] - step[given[kept], chosen]

    def _split(
        self, position: int, place: int, values: np.ndarray, amount: np.ndarray, numbers: Iterator[np.ndarray] | None
    ) -> tuple[np.ndarray | slice, np.ndarray]:
        """The bin of one child, given the bin (N,) of it and those before it together: as :func:`_select` has it."""
        child, split = self.tree.bags[position].children[place], self._plans[position].splits[place - 1]
        one, other = self._messages[child], self._joint[position][place - 1]
        of_one, of_other = split.child.find(values), split.before.find(values)
        # Go through the bins of the shorter one.
        swap = one.shape[1] > other.shape[1]
        if swap:
            one, of_one, other, of_other = other, of_other, one, of_one
        if len(amount) < len(other):
            other, of_other = other[of_other], np.arange(len(amount))
        least, most = (int(amount.min()), int(amount.max())) if len(amount) else (0, 0)
        first, last = max(least - other.shape[1] + 1, 0), min(one.shape[1] - 1, most)
        # A window of the other holds what is left for it, for all bins of this one: amount - last to amount - first.
        padded = np.zeros((len(other), last + max(most + 1, other.shape[1])))
        padded[:, last : last + other.shape[1]] = other
        windows = sliding_window_view(padded, last - first + 1, axis=1)

        def weigh(chunk: slice) -> np.ndarray:
            left = windows[of_other[chunk], amount[chunk]][:, ::-1]
            return np.multiply(one[of_one[chunk], first : last + 1].T, left.T, order="C")

        kept, chosen = _select(len(amount), last - first + 1, weigh, numbers)
        return kept, amount[kept] - first - chosen if swap else first + chosen


def _turned(interval: tuple[float, float], from_top: bool) -> tuple[float, float]:
    """An interval of costs as one of the costs' negatives, if from the top."""
    return (-interval[1], -interval[0]) if from_top else interval


def _signed(terms: Terms, from_top: bool) -> Terms:
    """The tables, or their negatives if from the top."""
    return [(variables, -table) for variables, table in terms] if from_top else terms


def _select(
    count: int, length: int, weigh: Callable[[slice], np.ndarray], numbers: Iterator[np.ndarray] | None
) -> tuple[np.ndarray | slice, np.ndarray]:
    """One choice for each of ``count`` rows by the weights (length, N) that ``weigh`` gives, or every possible one.

    Returns:
        The row of each choice, as an index, and the choices.
    """
    size = max(_CHUNK // max(length, 1), 1)
    own = None if numbers is None else next(numbers)
    rows: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
    choices: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
    for start in range(0, count, size):
        chunk = slice(start, start + size)
        weights = weigh(chunk)
        if own is None:
            row, choice = np.nonzero(weights.T)
            rows.append(start + row)
        else:
            cumulate(weights)
            # Below the sum even where rounding would make it the sum: the choice has a weight in any case.
            thresholds = np.minimum(own[chunk] * weights[-1], np.nextafter(weights[-1], 0.0))
            choice = (weights <= thresholds).sum(axis=0)
        choices.append(choice)
    return slice(None) if own is not None else np.concatenate(rows), np.concatenate(choices)


def _convolve(
    one: np.ndarray, one_rows: np.ndarray, other: np.ndarray, other_rows: np.ndarray, most: int
) -> np.ndarray:
    """Convolutions of rows of two arrays (rows, bins), up to ``most`` bins; numpy adds the products up directly."""
    result = np.empty((len(one_rows), min(one.shape[1] + other.shape[1] - 1, most)))
    for row, (left, right) in enumerate(zip(one_rows.tolist(), other_rows.tolist(), strict=True)):
        result[row] = np.convolve(one[left], other[right])[:most]
    return result


def _eliminate(below: np.ndarray, rows: np.ndarray, steps: np.ndarray, weights: np.ndarray, most: int) -> np.ndarray:
    """The sum over a variable's values of weighted and shifted rows, up to ``most`` bins.

    Args:
        below: Distributions (R, bins).
        rows: Which one it is for each row of the message and value (N, values).
        steps: By how many bins it is shifted (N, values).
        weights: Weight of each value (values,).
        most: Most bins.

    Returns:
        (N, bins).
    """
    furthest = int(steps.max())
    length = min(below.shape[1] + furthest, most)
    padded = np.pad(below[:, :length], [(0, 0), (furthest, max(length - below.shape[1], 0))])
    # Shifted by d to the right, a row begins d before its own beginning.
    windows = sliding_window_view(padded, length, axis=1)
    result = np.empty((len(rows), length))
    size = max(_CHUNK // (length * len(weights)), 1)
    for start in range(0, len(rows), size):
        chunk = slice(start, start + size)
        result[chunk] = np.einsum("x,nxb->nb", weights, windows[rows[chunk], furthest - steps[chunk]])
    return result
