"""FLOPs of subnets."""

from __future__ import annotations

import numpy as np

from pss_razor.core import AdditiveCost, CostTerm
from pss_razor.estimators.graph.graph_estimator import GraphEstimator
from pss_razor.estimators.graph.layer_spec import CostGraph, LayerSpec
from pss_razor.registry import TASK_UTILS


def multiply_accumulates(layer: LayerSpec, in_channels: np.ndarray, out_channels: np.ndarray, in_area: np.ndarray,
                         out_area: np.ndarray) -> np.ndarray:  # fmt: skip
    """MACs of one layer, batch 1: conv and linear without bias, the final average pooling as its input elements."""
    if layer.kind == "pool":
        return in_channels * in_area
    if layer.kind == "depthwise":
        return out_channels * layer.kernel_area * out_area
    return in_channels * out_channels * layer.kernel_area * out_area


@TASK_UTILS.register_module()
class FlopsEstimator(GraphEstimator):
    """FLOPs, which here and everywhere in the project are multiply-accumulates of one image, in millions.

    Example:
        ``estimators=dict(flops=dict(type='FlopsEstimator'))``
    """

    unit = "MFLOPs"

    def build_cost(self, graph: CostGraph) -> AdditiveCost:
        """The FLOPs of every subnet, in millions."""

        def term(layer: LayerSpec) -> CostTerm | None:
            if layer.kind == "norm":  # folds into the conv before it
                return None
            return layer.tabulate(graph.space, lambda **sizes: multiply_accumulates(layer, **sizes))

        return graph.sum(term, scale=1e-6)
