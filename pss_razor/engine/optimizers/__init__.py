"""An optimizer, an optimizer wrapper and a constructor of optimizer wrappers."""

from pss_razor.engine.optimizers.cpu_amp_optim_wrapper import CPUAmpOptimWrapper
from pss_razor.engine.optimizers.merged_groups_constructor import MergedGroupsConstructor
from pss_razor.engine.optimizers.rmsprop_tf import RMSpropTF

__all__ = ["CPUAmpOptimWrapper", "MergedGroupsConstructor", "RMSpropTF"]
