"""The subnets that an evaluation has measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from pss_razor.core import EvaluatedSubnet, best_of_pools
from pss_razor.evaluation.checks import get_algorithm
from pss_razor.evaluation.results import format_table


class MeasuredPools(Sequence[EvaluatedSubnet]):
    """The evaluated subnets, and what measured them; printed, a table of the best.

    Args:
        loop: The :class:`~pss_razor.engine.PoolTestLoop` that has run.
    """

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self._subnets = tuple(loop.results)

    @property
    def best(self) -> list[EvaluatedSubnet]:
        """The largest, the smallest, and the best subnet of each pool."""
        return best_of_pools(self._subnets, self.loop.criterion)

    def __len__(self) -> int:
        return len(self._subnets)

    @overload
    def __getitem__(self, index: int) -> EvaluatedSubnet: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EvaluatedSubnet]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._subnets[index]

    def __str__(self) -> str:
        return format_table(self.best, get_algorithm(self.loop.runner).estimators)
