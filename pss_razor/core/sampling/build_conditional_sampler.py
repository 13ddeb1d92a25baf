"""Which conditional sampler a space needs."""

from __future__ import annotations

from pss_razor.core.sampling.chain_sampler import ChainSampler, layer_off_chain
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler, EnumeratedSampler
from pss_razor.core.sampling.tree_sampler import TreeSampler
from pss_razor.core.space.constraint import Constraint
from pss_razor.core.space.cost import AdditiveCost


def build_conditional_sampler(cost: AdditiveCost, constraint: Constraint) -> ConditionalSampler:
    """The sampler that fits the space: enumeration where it is small, else dynamic programming along its layers.

    Raises:
        ConfigError: The space is too large to enumerate and ties too many groups together, or it cannot be told whether
            a target is reachable.
        UnreachableTargetError: No target at all can be reached.
    """
    if cost.space.size <= EnumeratedSampler.max_size:
        return EnumeratedSampler(cost, constraint)
    return ChainSampler(cost, constraint) if layer_off_chain(cost) is None else TreeSampler(cost, constraint)
