"""The method without a framework: subnets, search spaces, constraints, sampling, pools. Needs numpy only."""

from pss_razor.core.atomic_write import atomic_write
from pss_razor.core.baselines.baseline_samplers import (
    BASELINE_SAMPLERS,
    MutualNetSubnetSampler,
    UniformSubnetSampler,
    USNetSubnetSampler,
)
from pss_razor.core.cream.cream_space import (
    CREAM_OPS,
    CREAM_STAGES,
    KERNELS_AND_EXPANSIONS,
    STEM_CHANNELS,
    CreamModel,
    check_arch,
    choose_depths,
    released_model,
)
from pss_razor.core.cream.path_board import BoardEntry, PathBoard
from pss_razor.core.cream.path_sampler import PATH_SAMPLINGS, PathSampler
from pss_razor.core.criterion import RULES, Criterion, best_of_pools
from pss_razor.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
    MissingPackageError,
    PSSError,
    TrainingDivergedError,
    UnreachableTargetError,
)
from pss_razor.core.evaluated_subnet import EvaluatedSubnet
from pss_razor.core.extras import check_extra, check_packages
from pss_razor.core.parse_json import MAX_NESTING, check_nesting, parse_json, read_json_file
from pss_razor.core.pss.pool import PoolEntry, PrioritizedPool, PrioritizedPools, Turnover
from pss_razor.core.pss.prioritized_subnet_sampler import PrioritizedSubnetSampler
from pss_razor.core.pss.rescoring import Rescoring, build_rescorings
from pss_razor.core.pss.schedule import exponential_decay
from pss_razor.core.sampling.build_conditional_sampler import build_conditional_sampler
from pss_razor.core.sampling.chain_sampler import ChainSampler
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler, EnumeratedSampler, ListSampler
from pss_razor.core.sampling.range_sampler import RangeSampler
from pss_razor.core.sampling.shared_multiplier import shared_multiplier_subnets
from pss_razor.core.sampling.subnet_sampler import Draw, SubnetSampler
from pss_razor.core.sampling.tree_sampler import TreeSampler
from pss_razor.core.scalars import are_two_numbers, is_number, is_scalar
from pss_razor.core.space.active_subnet import ActiveSubnetMixin
from pss_razor.core.space.constraint import Constraint, build_constraints, check_metrics
from pss_razor.core.space.cost import AdditiveCost, CostTerm, ProductTerm
from pss_razor.core.space.search_space import Dimension, SearchSpace
from pss_razor.core.space.subnet import Subnet
from pss_razor.core.space.width import make_divisible, width_choices
from pss_razor.core.workers import Workers, usable_cores

__all__ = [
    "BASELINE_SAMPLERS",
    "CREAM_OPS",
    "CREAM_STAGES",
    "KERNELS_AND_EXPANSIONS",
    "MAX_NESTING",
    "PATH_SAMPLINGS",
    "RULES",
    "STEM_CHANNELS",
    "ActiveSubnetMixin",
    "AdditiveCost",
    "BoardEntry",
    "ChainSampler",
    "CheckpointError",
    "ConditionalSampler",
    "ConfigError",
    "Constraint",
    "CostTerm",
    "CreamModel",
    "Criterion",
    "DataError",
    "Dimension",
    "Draw",
    "EnumeratedSampler",
    "EvaluatedSubnet",
    "ExportError",
    "ListSampler",
    "MissingPackageError",
    "MutualNetSubnetSampler",
    "PSSError",
    "PathBoard",
    "PathSampler",
    "PoolEntry",
    "PrioritizedPool",
    "PrioritizedPools",
    "PrioritizedSubnetSampler",
    "ProductTerm",
    "RangeSampler",
    "Rescoring",
    "SearchSpace",
    "Subnet",
    "SubnetSampler",
    "TrainingDivergedError",
    "TreeSampler",
    "Turnover",
    "USNetSubnetSampler",
    "UniformSubnetSampler",
    "UnreachableTargetError",
    "Workers",
    "are_two_numbers",
    "atomic_write",
    "best_of_pools",
    "build_conditional_sampler",
    "build_constraints",
    "build_rescorings",
    "check_arch",
    "check_extra",
    "check_metrics",
    "check_nesting",
    "check_packages",
    "choose_depths",
    "exponential_decay",
    "is_number",
    "is_scalar",
    "make_divisible",
    "parse_json",
    "read_json_file",
    "released_model",
    "shared_multiplier_subnets",
    "usable_cores",
    "width_choices",
]
