"""A supernet without a runner."""

from __future__ import annotations

from torch import nn

from pss_razor.estimators import CostGraph, read_cost_graph
from pss_razor.models.mutators import SubnetMutator
from pss_razor.registry import MODELS

from mmengine.config import Config
from mmengine.registry import init_default_scope


def build_supernet(config: Config) -> tuple[nn.Module, SubnetMutator, CostGraph]:
    """Build the supernet of a config in evaluation mode, without runner, data or constraints.

    Returns:
        The supernet, its mutator and its cost graph.
    """
    init_default_scope(config.get("default_scope", "mmrazor"))
    architecture = MODELS.build(config.model.architecture).eval()
    mutator = MODELS.build(config.model.mutator)
    mutator.prepare_from_supernet(architecture)
    input_size = config.model.get("input_size")
    return architecture, mutator, read_cost_graph(architecture, mutator.space, mutator.active, input_size=input_size)
