"""FLOPs of subnets."""

from __future__ import annotations

from pss_razor.core import AdditiveCost
from pss_razor.core.cost_graph import CostGraph
from pss_razor.estimators.graph.graph_estimator import GraphEstimator
from pss_razor.registry import TASK_UTILS


@TASK_UTILS.register_module()
class FlopsEstimator(GraphEstimator):
    """FLOPs, which here and everywhere in the project are multiply-accumulates of one image, in millions.

    Example:
        ``estimators=dict(flops=dict(type='FlopsEstimator'))``
    """

    unit = "MFLOPs"

    def build_cost(self, graph: CostGraph) -> AdditiveCost:
        """The FLOPs of every subnet, in millions."""
        return graph.flops
