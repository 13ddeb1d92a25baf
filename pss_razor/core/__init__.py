"""The method without a framework: subnets, search spaces, constraints, sampling, pools. Needs numpy only."""

from pss_razor.core.atomic_write import atomic_write
from pss_razor.core.constraint import Constraint
from pss_razor.core.cost import AdditiveCost, CostTerm
from pss_razor.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
    PSSError,
    TrainingDivergedError,
    UnreachableTargetError,
)
from pss_razor.core.pool import PoolEntry, PrioritizedPool, PrioritizedPools
from pss_razor.core.sampler import ConditionalSampler, Draw, PrioritizedSubnetSampler
from pss_razor.core.schedule import exponential_decay
from pss_razor.core.space import Dimension, SearchSpace
from pss_razor.core.subnet import Subnet
from pss_razor.core.width import make_divisible, width_choices

__all__ = [
    "AdditiveCost",
    "CheckpointError",
    "ConditionalSampler",
    "ConfigError",
    "Constraint",
    "CostTerm",
    "DataError",
    "Dimension",
    "Draw",
    "ExportError",
    "PSSError",
    "PoolEntry",
    "PrioritizedPool",
    "PrioritizedPools",
    "PrioritizedSubnetSampler",
    "SearchSpace",
    "Subnet",
    "TrainingDivergedError",
    "UnreachableTargetError",
    "atomic_write",
    "exponential_decay",
    "make_divisible",
    "width_choices",
]
