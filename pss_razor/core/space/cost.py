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


@dataclass(frozen=True)
class ProductTerm:
    """A part of the cost that is a sum of sizes, times a table: of a layer whose input is a concatenation.

    Args:
        sizes: What is added up: a dimension, and a size for each of its values (n,).
        factor: The table that the sum is multiplied by.
    """

    sizes: tuple[tuple[str, np.ndarray], ...]
    factor: CostTerm

    def expand(self) -> list[CostTerm]:
        """The same as a sum of tables, one for each size."""
        return [
            CostTerm((name, *self.factor.dimensions), np.multiply.outer(values, self.factor.table))
            for name, values in self.sizes
        ]


class AdditiveCost:
    """The sum of :class:`CostTerm` over a search space: the form that FLOPs, parameters and table latencies share.

    Dimensions that make no difference to a term are dropped. Terms over the same dimensions are merged, and terms whose
    dimensions are part of another's are folded into it.
    Products are expanded, and also kept, since they tell that a sum of sizes is all that matters of many groups.

    Args:
        space: The search space.
        terms: Parts of the cost.
        scale: Factor from the tables' unit to the unit of :meth:`__call__`.

    Attributes:
        terms: All tables, each with the columns of its axes.
        products: Those parts that are products of the sizes of two groups or more and another group's table.
        other_terms: Tables of everything but :attr:`products`.
    """

    def __init__(self, space: SearchSpace, terms: Sequence[CostTerm | ProductTerm], scale: float = 1.0) -> None:
        self.space = space
        self.scale = scale
        products, tables = list[ProductTerm](), list[CostTerm]()
        for term in terms:
            if isinstance(term, CostTerm):
                tables.append(self._reduce(term))
                continue
            product = ProductTerm(term.sizes, self._reduce(term.factor))
            if self._ties(product):
                products.append(product)
            else:
                tables += product.expand()
        self.products = tuple(products)
        self.other_terms = self._merge(tables)
        expanded = [table for product in products for table in product.expand()]
        self.terms = self._merge([*tables, *expanded]) if products else self.other_terms

    def _ties(self, product: ProductTerm) -> bool:
        """Whether a product depends on several groups' sizes and on another group."""
        dimensions = {d.name: d for d in self.space.dimensions if d.kind != "resolution" and len(d.values) > 1}
        summed = dimensions.keys() & {name for name, _ in product.sizes}
        return len(summed) > 1 and bool(dimensions.keys() & set(product.factor.dimensions))

    def _reduce(self, term: CostTerm) -> CostTerm:
        """A term without the dimensions that make no difference to it."""
        expected = tuple(self.space.shape[self.space.position(name)] for name in term.dimensions)
        if term.table.shape != expected:
            raise ValueError(f"a table over {term.dimensions} has shape {term.table.shape}, not {expected}")
        names, table = list(term.dimensions), term.table
        for axis in reversed(range(table.ndim)):
            if (table == table.take([0], axis)).all():
                del names[axis]
                table = table.take(0, axis)
        return CostTerm(tuple(names), np.asarray(table))

    def _merge(self, terms: Sequence[CostTerm]) -> tuple[tuple[tuple[int, ...], np.ndarray], ...]:
        space = self.space
        merged: dict[tuple[int, ...], np.ndarray] = {}
        for term in terms:
            columns = [space.position(name) for name in term.dimensions]
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
        return tuple((columns, np.ascontiguousarray(table)) for columns, table in sorted(merged.items()))

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
