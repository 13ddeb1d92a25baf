"""Parameters of subnets."""

from __future__ import annotations

import numpy as np

from pss_razor.core import AdditiveCost, CostTerm
from pss_razor.estimators.graph.graph_estimator import GraphEstimator
from pss_razor.estimators.graph.layer_spec import CostGraph, LayerSpec
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

        def term(layer: LayerSpec) -> CostTerm | None:
            if layer.kind == "pool":
                return None

            def count(in_channels: np.ndarray, out_channels: np.ndarray, **areas: np.ndarray) -> np.ndarray:
                if layer.kind == "norm":
                    return 2 * out_channels
                fan_in = 1 if layer.kind == "depthwise" else in_channels
                return out_channels * (fan_in * layer.kernel_area + int(layer.has_bias))

            return layer.tabulate(graph.space, count)

        return graph.sum(term, scale=1e-6)
