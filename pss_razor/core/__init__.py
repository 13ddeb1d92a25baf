"""The method without a framework: subnets, search spaces, constraints, sampling, pools. Needs numpy only."""

from pss_razor.core.atomic_write import atomic_write
from pss_razor.core.chain_sampler import ChainSampler
from pss_razor.core.conditional_sampler import ConditionalSampler, EnumeratedSampler
from pss_razor.core.constraint import Constraint, build_constraints, check_metrics
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
from pss_razor.core.sampler import Draw, PrioritizedSubnetSampler, build_conditional_sampler
from pss_razor.core.schedule import exponential_decay
from pss_razor.core.space import Dimension, SearchSpace
from pss_razor.core.subnet import Subnet
from pss_razor.core.width import make_divisible, width_choices

__all__ = [
    "AdditiveCost",
    "ChainSampler",
    "CheckpointError",
    "ConditionalSampler",
    "ConfigError",
    "Constraint",
    "CostTerm",
    "DataError",
    "Dimension",
    "Draw",
    "EnumeratedSampler",
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
    "build_conditional_sampler",
    "build_constraints",
    "check_metrics",
    "exponential_decay",
    "make_divisible",
    "width_choices",
]
