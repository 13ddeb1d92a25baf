"""Conditional sampling in spaces that are too large to enumerate and no chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pss_razor.core.errors import ConfigError
from pss_razor.core.sampling.bag_tree import BagTree
from pss_razor.core.sampling.binned_sampler import BINS_A_STEP, FEW, MOST_LISTED, BinnedSampler
from pss_razor.core.sampling.running_sums import RunningSums
from pss_razor.core.sampling.tree_distribution import Terms, TreeDistribution
from pss_razor.core.space.cost import ProductTerm

# Memory that the messages of one resolution, and of all, may take.
_MOST_BYTES = 2**29
_MOST_BYTES_IN_ALL = 3 * 2**29
# Bins shrink in number down to this, where memory would not suffice.
_FEWEST_BINS = 8
# Each bin is split into one of these numbers for targets that accept a smaller share of draws.
_FINER = (2, 4, 8, 16, 32, 64)
_ENOUGH_ACCEPTED = 0.3
# Memory that one distribution of such bins may take.
_MOST_FINER_BYTES = 2**28


@dataclass(frozen=True)
class _Layout:
    """The cost's tables at each resolution, and their tree."""

    tree: BagTree
    terms: Sequence[Terms]


class TreeSampler(BinnedSampler):
    """For any sum of tables over few groups each: residual blocks, concatenations, a depth shared by its blocks.

    Groups that share a table are neighbours in a graph; its tree decomposition takes the place of the chain, see
    :class:`BagTree` and :class:`TreeDistribution` (DESIGN, section 8). The resolution, which shares a table with nearly
    every group, is the outermost loop. Time and memory grow with the number of combinations of the largest clique of
    groups, times the bins. Where memory would not suffice, bins are made coarser, down to an eighth: draws are as
    exact, but more are rejected. Where a layer's input is a concatenation, its channels in all are a variable too if
    that takes less memory, see :class:`RunningSums`.

    Few subnets are listed by going through the tree with every possible choice in place of one drawn, at finer bins if
    need be. So :meth:`count` is exact where the bins about a target hold at most 100,000 subnets at one resolution, and
    zero where they hold none. Else it is a lower bound: the subnets in bins that are surely inside.

    Raises:
        ConfigError: The largest clique needs too much memory; or it cannot be told whether a target is reachable:
            more than 100,000 subnets are within rounding of its edges, and no draw hits it.
    """

    def _distribute(self) -> list[TreeDistribution]:
        if self.space.size > 10**300:
            raise ConfigError(
                f"the search space has 10^{len(str(self.space.size)) - 1} subnets, more than can be counted; search "
                "fewer groups or choices"
            )
        width = self.constraint.step / BINS_A_STEP
        self._layout = min(self._layouts(), key=lambda layout: sum(self._stored(layout, width)))
        self._width = self.constraint.step / self._bins_a_step()
        self._made = [self._make(outer, self._width, self._needed) for outer in range(len(self._layout.terms))]
        self._finer: dict[int, list[TreeDistribution]] = {}
        self._refine()
        return self._made

    def _layouts(self) -> Iterator[_Layout]:
        """Ways to write the cost: by its groups alone, and with sums of groups' sizes as variables."""
        sizes = [len(probabilities) for probabilities in self._probabilities]
        outers, scale = range(len(self._outer_probabilities)), self.cost.scale
        terms = [self._terms(outer, scale) for outer in outers]
        yield _Layout(BagTree(sizes, {scope for outer in outers for scope, _ in terms[outer]}), terms)
        if self.cost.products:
            sums = RunningSums(sizes)
            terms = [
                [self._at(outer, columns, table * scale) for columns, table in self.cost.other_terms]
                + [self._multiplied(product, sums, outer) for product in self.cost.products]
                for outer in outers
            ]
            scopes = {scope for outer in outers for scope, _ in terms[outer]}
            yield _Layout(BagTree(sums.sizes, scopes, sums.derived), terms)

    def _multiplied(self, product: ProductTerm, sums: RunningSums, outer: int) -> tuple[tuple[int, ...], np.ndarray]:
        """A product's table over the sum's variable and its factor's."""
        sizes = [self._at(outer, (self.space.position(name),), values) for name, values in product.sizes]
        variable, totals = sums.add([(position, values) for positions, values in sizes for position in positions])
        totals = totals + sum(value for positions, value in sizes if not positions)
        columns = [self.space.position(name) for name in product.factor.dimensions]
        positions, factor = self._at(outer, columns, product.factor.table * self.cost.scale)
        return (variable, *positions), np.multiply.outer(totals, factor)

    def _make(self, outer: int, width: float, needed: tuple[float, float], from_top: bool = False) -> TreeDistribution:
        tree, terms = self._layout.tree, self._layout.terms[outer]
        return TreeDistribution(tree, terms, self._probabilities, width, needed, from_top)

    def _bytes(self, outer: int, width: float, needed: tuple[float, float], from_top: bool = False) -> int:
        tree, terms = self._layout.tree, self._layout.terms[outer]
        return TreeDistribution.stored_bytes(tree, terms, width, needed, from_top)

    def _stored(self, layout: _Layout, width: float) -> list[int]:
        """About how much memory the distribution at each resolution would take."""
        return [TreeDistribution.stored_bytes(layout.tree, terms, width, self._needed) for terms in layout.terms]

    @property
    def _needed(self) -> tuple[float, float]:
        """Least and most cost of all targets."""
        return self._edges(0)[0], self._edges(len(self.constraint.targets) - 1)[1]

    def _bins_a_step(self) -> int:
        """The most bins between two targets that memory suffices for."""
        bins = BINS_A_STEP
        while bins >= _FEWEST_BINS:
            stored = self._stored(self._layout, self.constraint.step / bins)
            if max(stored) <= _MOST_BYTES and sum(stored) <= _MOST_BYTES_IN_ALL:
                self._bytes_left = _MOST_BYTES_IN_ALL - sum(stored)
                return bins
            bins //= 2
        tree = self._layout.tree
        clique = max((bag.scope for bag in tree.bags[:-1]), key=tree.count, default=())
        names = [self.space.names[self._widths[v]] for v in sorted(clique) if v not in tree.derived]
        sums = len(clique) - len(names)
        tied = f"{names} and {sums} sums of widths" if sums else f"{names}"
        raise ConfigError(
            f"{self.constraint.metric}: exact draws would take {max(stored) / 2**30:.3g} GiB a resolution and "
            f"{sum(stored) / 2**30:.3g} GiB in all, more than {_MOST_BYTES / 2**30:g} and "
            f"{_MOST_BYTES_IN_ALL / 2**30:g}: the cost ties {tied} together, {tree.count(clique)} "
            "combinations; search fewer groups or choices among them, or make the step larger"
        )

    def _around(self, index: int) -> list[TreeDistribution]:
        return self._finer.get(index, self._made)

    def _refine(self) -> None:
        """Make bins finer where most draws near a target would be rejected, or its few subnets are among many.

        Near the ends of the costs the number of subnets rises steeply, like a power of the distance that the number of
        groups is in, and what rounding may let in outweighs the rest. There only the bins between the end and the
        target are needed, so that many more of them are affordable; targets nearer to the end share them. The finest
        are made first, as the ends need them most.
        """
        for _ in _FINER:
            wanted: dict[tuple[int, int, bool], list[int]] = {}
            for index in range(len(self.constraint.targets)):
                for outer, accepted in self._unsure(index).items():
                    finer, from_top = self._choose_finer(index, outer, accepted)
                    if finer:
                        wanted.setdefault((finer, outer, from_top), []).append(index)
            made = [self._make_finer(*key, wanted[key]) for key in sorted(wanted, reverse=True)]
            if not any(made):
                break

    def _unsure(self, index: int) -> dict[int, float]:
        """The resolutions whose bins are too coarse for a target -> about the share of draws that it accepts."""
        edges, around = self._edges(index), self._around(index)
        scales = np.stack((self._outer_probabilities, np.ones(len(around))), axis=1)
        # Probability and number at each resolution (resolutions, 2).
        widest, surest, likely = (
            np.array([d.mass(window) for d, window in zip(around, windows, strict=True)]) * scales
            for windows in zip(*((*d.windows(*edges), d.likely(*edges)) for d in around), strict=True)
        )
        crowded = surest[:, 1].sum() >= FEW and likely[:, 0].sum() >= _ENOUGH_ACCEPTED * widest[:, 0].sum()
        if crowded or widest[:, 1].sum() <= MOST_LISTED:
            return {}
        unsure = np.flatnonzero((widest - surest > 0.01 * widest.sum(axis=0)).any(axis=1))
        return {outer: likely[outer, 0] / max(widest[outer, 0], 1e-300) for outer in unsure.tolist()}

    def _choose_finer(self, index: int, outer: int, accepted: float) -> tuple[int, bool]:
        """How much finer bins should be for a target, 0 if memory allows no more; and from which end they are counted.

        What rounding lets in shrinks with the bins, and the share that is accepted grows about exponentially with that.
        """
        edges, now = self._edges(index), self._around(index)[outer].width
        low, high = self._made[outer].bounds
        from_top = bool(high - edges[1] < edges[0] - low)
        best = 0
        for finer in _FINER:
            width = self._width / finer
            if width < 0.9 * now and self._bytes(outer, width, edges, from_top) <= self._affordable:
                best = finer
                if accepted ** (width / now) >= _ENOUGH_ACCEPTED:
                    break
        return best, from_top

    def _make_finer(self, finer: int, outer: int, from_top: bool, indices: list[int]) -> bool:
        """Make finer bins for targets, without those farthest from the end if they take too much memory."""
        nearer = sorted(indices, reverse=not from_top)
        while nearer:
            args = outer, self._width / finer, self._edges(nearer[0]), from_top
            stored = self._bytes(*args)
            if stored <= self._affordable:
                self._bytes_left -= stored
                distribution = self._make(*args)
                for index in nearer:
                    around = self._around(index)
                    self._finer[index] = [*around[:outer], distribution, *around[outer + 1 :]]
                return True
            nearer.pop(0)
        return False

    @property
    def _affordable(self) -> int:
        """Bytes that one more distribution may take."""
        return min(_MOST_FINER_BYTES, self._bytes_left)

    def _list(self, index: int, outer: int) -> np.ndarray | None:
        distribution = self._around(index)[outer]
        window = distribution.windows(*self._edges(index))[0]
        number = distribution.mass(window)[1]
        if number > MOST_LISTED:
            return None
        rows = distribution.list_all(window) if number else np.zeros((0, len(self._widths)), dtype=np.int64)
        subnets = self._subnets(rows, outer)
        return subnets[self._belong(index, subnets)]
