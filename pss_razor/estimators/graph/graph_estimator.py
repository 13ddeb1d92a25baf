"""What all estimators have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from pss_razor.core import AdditiveCost
from pss_razor.core.cost_graph import CostGraph

from mmrazor.models.task_modules.estimators.base_estimator import BaseEstimator


class GraphEstimator(BaseEstimator):
    """MMRazor's ``BaseEstimator`` for costs that follow from a :class:`~pss_razor.estimators.CostGraph`.

    Attributes:
        unit: Unit of the costs, as a constraint's targets and the tables of results have it.
    """

    unit: str

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def build_cost(self, graph: CostGraph) -> AdditiveCost:
        """The cost of every subnet of ``graph.space``, in :attr:`unit`."""

    def estimate(
        self, model: Any, flops_params_cfg: dict | None = None, latency_cfg: dict | None = None
    ) -> dict[str, float]:
        """MMRazor's interface: the cost of the active subnet of a PSS algorithm, by metric."""
        if flops_params_cfg or latency_cfg:
            raise ValueError(
                f"{type(self).__name__} reads the built supernet; it takes no flops_params_cfg or latency_cfg"
            )
        cost = self.build_cost(model.cost_graph)
        indices = cost.space.encode([model.mutator.active_subnet])
        return {type(self).__name__.removesuffix("Estimator").lower(): float(cost(indices)[0])}
