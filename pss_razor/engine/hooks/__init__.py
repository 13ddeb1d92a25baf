"""Hooks."""

from pss_razor.engine.hooks.baseline_sampler_hook import BaselineSamplerHook
from pss_razor.engine.hooks.deferred_runtime_info_hook import DeferredRuntimeInfoHook
from pss_razor.engine.hooks.path_board_hook import PathBoardHook
from pss_razor.engine.hooks.prioritized_pool_sampler_hook import PrioritizedPoolSamplerHook
from pss_razor.engine.hooks.random_state_hook import RandomStateHook
from pss_razor.engine.hooks.subnet_sampler_hook import SubnetSamplerHook
from pss_razor.engine.hooks.training_cost_hook import TrainingCostHook

__all__ = [
    "BaselineSamplerHook",
    "DeferredRuntimeInfoHook",
    "PathBoardHook",
    "PrioritizedPoolSamplerHook",
    "RandomStateHook",
    "SubnetSamplerHook",
    "TrainingCostHook",
]
