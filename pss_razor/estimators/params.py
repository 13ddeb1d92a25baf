"""Parameters of subnets."""

from __future__ import annotations

from pss_razor.core import AdditiveCost
from pss_razor.core.cost_graph import CostGraph
from pss_razor.estimators.graph.graph_estimator import GraphEstimator
from pss_razor.registry import TASK_UTILS


@TASK_UTILS.register_module()
class ParamsEstimator(GraphEstimator):
    """Learned parameters of the active channels, in millions: conv, linear, biases and BN's weight and bias.

    Example:
        ``estimators=dict(params=dict(type='ParamsEstimator'))``
    """

    unit = "M params"

    def build_cost(self, graph: CostGraph) -> AdditiveCost:
        """The parameters of every subnet, in millions."""
        return graph.params
