"""Resource estimators: a supernet's layers as a cost graph, and the metrics computed from it."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
from pss_razor.core.cost_graph import BlockGeometry, BlockSpec, CostGraph, Extent, LayerSpec
from pss_razor.estimators.flops import FlopsEstimator
from pss_razor.estimators.graph.cost_graph_reader import read_cost_graph
from pss_razor.estimators.latency.latency_estimator import LatencyEstimator, latency_cost
from pss_razor.estimators.latency.latency_table import LatencyTable
from pss_razor.estimators.one_shot_resource_estimator import OneShotResourceEstimator
from pss_razor.estimators.params import ParamsEstimator

__all__ = [
    "BlockGeometry",
    "BlockSpec",
    "CostGraph",
    "Extent",
    "FlopsEstimator",
    "LatencyEstimator",
    "LatencyTable",
    "LayerSpec",
    "OneShotResourceEstimator",
    "ParamsEstimator",
    "latency_cost",
    "read_cost_graph",
]
