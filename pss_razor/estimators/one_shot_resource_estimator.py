"""MMRazor's resources of all subnets of a supernet of one-shot ops, counted in one forward pass."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import nn

from pss_razor.core import AdditiveCost, ConfigError, CostTerm, SearchSpace
from pss_razor.estimators.graph.cost_graph_reader import read_cost_graph
from pss_razor.registry import TASK_UTILS

from mmrazor.models.mutables import OneShotMutableOP
from mmrazor.models.task_modules.estimators.base_estimator import BaseEstimator
from mmrazor.models.task_modules.estimators.counters.flops_params_counter import get_model_flops_params


@TASK_UTILS.register_module()
class OneShotResourceEstimator(BaseEstimator):
    """MMRazor's ``ResourceEstimator`` for every subnet at once.

    MMRazor exports and counts one subnet at a time, a fraction of a second each. Its counts add up over the ops, so one
    forward pass in which every candidate runs gives those of all subnets. FLOPs are counted as MMRazor does for SPOS:
    besides multiply-accumulates it counts the biases of convs, the elements of ReLU and pooling, and twice those of BN,
    which makes 3 to 4 % more than ``FlopsEstimator``.

    Args:
        input_size: Side of the images in pixels.
        estimators: Other metrics -> estimator config, such as a latency.

    Attributes:
        units: Metric -> unit.

    Example:
        ``estimator_cfg=dict(type='OneShotResourceEstimator', input_size=224, estimators=dict(latency_cpu=dict(
        type='LatencyEstimator', table=FILE, device='cpu')))``
    """

    def __init__(self, input_size: int, estimators: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.estimators = {metric: TASK_UTILS.build(config) for metric, config in (estimators or {}).items()}
        self.units = {"flops": "MFLOPs of MMRazor", "params": "M params"}
        self.units |= {metric: estimator.unit for metric, estimator in self.estimators.items()}

    def build_costs(self, supernet: nn.Module, mutator: Any) -> dict[str, AdditiveCost]:
        """Metric -> cost of every subnet: ``flops`` in millions, ``params`` in millions, and the other metrics.

        Args:
            supernet: Called with images (1, C, H, W).
            mutator: Its :class:`SubnetMutator`.

        Raises:
            ConfigError: The supernet searches something else than ops.
        """
        costs = count_one_shot_resources(supernet, mutator.space, mutator.search_groups, self.input_size)
        if self.estimators:
            graph = read_cost_graph(supernet, mutator.space, mutator.active, input_size=self.input_size)
            costs |= {metric: estimator.build_cost(graph) for metric, estimator in self.estimators.items()}
        return costs

    def estimate(
        self, model: Any, flops_params_cfg: dict | None = None, latency_cfg: dict | None = None
    ) -> dict[str, float]:
        """MMRazor's interface: the costs of the active subnet of an algorithm, by metric."""
        if flops_params_cfg or latency_cfg:
            raise ValueError("OneShotResourceEstimator reads the built supernet; it takes no cfg of a call")
        costs = self.build_costs(model.architecture, model.mutator)
        indices = model.mutator.space.encode([model.mutator.active_subnet])
        return {metric: float(cost(indices)[0]) for metric, cost in costs.items()}


def count_one_shot_resources(
    supernet: nn.Module, space: SearchSpace, groups: Mapping[str, Iterable[nn.Module]], input_size: int
) -> dict[str, AdditiveCost]:
    """FLOPs and parameters of every subnet by MMRazor's own counters, in millions.

    Args:
        supernet: Called with images (1, 3, H, W).
        space: Its search space.
        groups: Name of each search group -> its ops.
        input_size: H and W.

    Raises:
        ConfigError: Something else than ops is searched.
    """
    places = {id(module): place for place, module in supernet.named_modules()}
    members: dict[str, list[str]] = {}
    for name, modules in groups.items():
        if not all(isinstance(module, OneShotMutableOP) for module in modules):
            raise ConfigError(
                f"the search group {name!r} is no one-shot op; set an estimator of our own for each metric"
            )
        members[name] = [places[id(module)] for module in modules]
    counted = copy.deepcopy(supernet).to("meta")
    candidates = []
    for module_place in (place for own in members.values() for place in own):
        module = counted.get_submodule(module_place)
        assert isinstance(module, OneShotMutableOP)
        module.current_choice = None  # all candidates run, and their outputs are added
        candidates += [f"{module_place}._candidates.{choice}" for choice in module.choices]
    counts = get_model_flops_params(
        counted, (1, 3, input_size, input_size), spec_modules=["", *candidates], units=None, seperate_return=True
    )

    def cost(key: str) -> AdditiveCost:
        always = counts[""][key] - sum(counts[candidate][key] for candidate in candidates)
        terms = [CostTerm((), np.array(float(always)))]
        for dimension in space.dimensions:
            table = [
                sum(counts[f"{place}._candidates.{choice}"][key] for place in members[dimension.name])
                for choice in dimension.values
            ]
            terms.append(CostTerm((dimension.name,), np.array(table, dtype=np.float64)))
        return AdditiveCost(space, terms, scale=1e-6)

    return {"flops": cost("flops"), "params": cost("params")}
