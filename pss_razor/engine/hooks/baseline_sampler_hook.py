"""The hook of the baselines: subnets are drawn without pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pss_razor.core import BASELINE_SAMPLERS, AdditiveCost, ConfigError, Constraint, SubnetSampler
from pss_razor.engine.hooks.subnet_sampler_hook import SubnetSamplerHook
from pss_razor.registry import HOOKS


@HOOKS.register_module()
class BaselineSamplerHook(SubnetSamplerHook):
    """Draw a subnet before every training iteration as the methods do that PSS-Net compares with (its section 4).

    Args:
        method: ``"usnet"``, one width multiplier for all layers at the largest resolution; ``"mutualnet"``, one width
            multiplier and the resolution; ``"uniform"``, every group by itself.
        seed: Seed of the draws; None takes the runner's.
        num_sampled: See :class:`SubnetSamplerHook`.
        smallest_resolution: See :class:`SubnetSamplerHook`.

    Example:
        ``default_hooks=dict(subnet_sampler=dict(type='BaselineSamplerHook', method='mutualnet'))``
    """

    def __init__(
        self, method: str, seed: int | None = None, num_sampled: int = 1, smallest_resolution: str = "smallest"
    ) -> None:
        if method not in BASELINE_SAMPLERS:
            raise ConfigError(f"method = {method!r} is no baseline; choose from {list(BASELINE_SAMPLERS)}")
        super().__init__(seed, num_sampled, smallest_resolution)
        self.method = method

    def build_sampler(
        self, costs: Mapping[str, AdditiveCost], constraints: Sequence[Constraint], seed: int
    ) -> SubnetSampler:
        """The method's sampler."""
        return BASELINE_SAMPLERS[self.method](costs, constraints, seed)
