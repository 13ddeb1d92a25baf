"""Which conditional sampler a space needs."""

from __future__ import annotations

from pss_razor.core.sampling.chain_sampler import ChainSampler
from pss_razor.core.sampling.conditional_sampler import ConditionalSampler, EnumeratedSampler
from pss_razor.core.space.constraint import Constraint
from pss_razor.core.space.cost import AdditiveCost


def build_conditional_sampler(cost: AdditiveCost, constraint: Constraint) -> ConditionalSampler:
    """The sampler that fits the space: enumeration where it is small, else dynamic programming along the layers.

    Raises:
        ConfigError: The space is too large to enumerate and its cost is not a chain.
        UnreachableTargetError: No target at all can be reached.
    """
    small = cost.space.size <= EnumeratedSampler.max_size
    return EnumeratedSampler(cost, constraint) if small else ChainSampler(cost, constraint)
