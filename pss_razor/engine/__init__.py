"""What MMEngine calls: hooks, loops, optimizers, and what starts them."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
from pss_razor.engine.hooks import (
    BaselineSamplerHook,
    PathBoardHook,
    PrioritizedPoolSamplerHook,
    RandomStateHook,
    SubnetSamplerHook,
    TrainingCostHook,
)
from pss_razor.engine.loops import ConstrainedSearchLoop, PoolTestLoop, PoolValLoop
from pss_razor.engine.optimizers import CPUAmpOptimWrapper, MergedGroupsConstructor, RMSpropTF
from pss_razor.engine.worker_seed import epoch_worker_seed

__all__ = [
    "BaselineSamplerHook",
    "CPUAmpOptimWrapper",
    "ConstrainedSearchLoop",
    "MergedGroupsConstructor",
    "PathBoardHook",
    "PoolTestLoop",
    "PoolValLoop",
    "PrioritizedPoolSamplerHook",
    "RMSpropTF",
    "RandomStateHook",
    "SubnetSamplerHook",
    "TrainingCostHook",
    "epoch_worker_seed",
]
