"""When things happen: the sampler hook, BN calibration, evaluation loops, optimizer construction."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
from pss_razor.engine.bn_calibration import calibrate_bn, isolated_bn_statistics
from pss_razor.engine.checkpoint import check_state_dict, find_latest_checkpoint, read_checkpoint
from pss_razor.engine.hooks import (
    BaselineSamplerHook,
    PathBoardHook,
    PrioritizedPoolSamplerHook,
    RandomStateHook,
    SubnetSamplerHook,
)
from pss_razor.engine.loops import ConstrainedSearchLoop, PoolTestLoop, PoolValLoop
from pss_razor.engine.optimizers import CPUAmpOptimWrapper, MergedGroupsConstructor, RMSpropTF
from pss_razor.engine.searched_subnet import searched_subnet
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
    "calibrate_bn",
    "check_state_dict",
    "epoch_worker_seed",
    "find_latest_checkpoint",
    "isolated_bn_statistics",
    "read_checkpoint",
    "searched_subnet",
]
