"""Resource estimators: a supernet's layers as a cost graph, and the metrics computed from it."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
from pss_razor.estimators.flops import FlopsEstimator
from pss_razor.estimators.layer_spec import CostGraph, Extent, LayerSpec, read_cost_graph
from pss_razor.estimators.params import ParamsEstimator

__all__ = ["CostGraph", "Extent", "FlopsEstimator", "LayerSpec", "ParamsEstimator", "read_cost_graph"]
