"""The hook of the method: subnets are drawn from prioritized pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pss_razor.core import AdditiveCost, ConfigError, Constraint, Draw, PrioritizedSubnetSampler, exponential_decay
from pss_razor.engine.hooks.subnet_sampler_hook import SubnetSamplerHook
from pss_razor.registry import HOOKS

from mmengine.runner import EpochBasedTrainLoop, Runner


@HOOKS.register_module()
class PrioritizedPoolSamplerHook(SubnetSamplerHook):
    """Draw a subnet before every training iteration and tell its pool the score after it (PSS-Net, section 3).

    Args:
        pool_size: Most entries of a pool.
        score_momentum: Weight of the old score when a subnet is visited again.
        p_explore: Probability of a new subnet from the search space, at the start and at the end of training.
        temperature: Softmax temperature of draws from a pool, at the start and at the end.
        seed: Seed of the draws; None takes the runner's.
        num_sampled: Subnets drawn for an iteration.

    Example:
        ``default_hooks=dict(subnet_sampler=dict(type='PrioritizedPoolSamplerHook', pool_size=50))``
    """

    sampler: PrioritizedSubnetSampler

    def __init__(
        self,
        pool_size: int = 50,
        score_momentum: float = 0.9,
        p_explore: tuple[float, float] = (1.0, 0.01),
        temperature: tuple[float, float] = (1.0, 0.01),
        seed: int | None = None,
        num_sampled: int = 1,
    ) -> None:
        for name, value in dict(p_explore=p_explore, temperature=temperature).items():
            if len(value) != 2 or not all(v > 0 for v in value):
                raise ConfigError(
                    f"{name} = {value} must be two positive numbers, at the start and the end of training"
                )
        super().__init__(seed, num_sampled)
        self.pool_size = pool_size
        self.score_momentum = score_momentum
        self.p_explore = p_explore
        self.temperature = temperature

    def build_sampler(
        self, costs: Mapping[str, AdditiveCost], constraints: Sequence[Constraint], seed: int
    ) -> PrioritizedSubnetSampler:
        """The sampler, with empty pools."""
        return PrioritizedSubnetSampler(costs, constraints, self.pool_size, self.score_momentum, seed)

    def draw(self, runner: Runner) -> Draw:
        """Draw with the current exploration probability and temperature."""
        return self.sampler.draw(*self._scheduled(runner))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw the subnets of this iteration, and log the share of new ones."""
        super().before_train_iter(runner, batch_idx, data_batch)
        if self._draws:
            runner.message_hub.update_scalar("train/explored", fmean(draw.explored for draw in self._draws))

    def after_train_epoch(self, runner: Runner) -> None:
        """Log the number of entries of all pools, the exploration probability and the temperature."""
        super().after_train_epoch(runner)
        p_explore, temperature = self._scheduled(runner)
        runner.message_hub.update_scalar("train/pool_entries", sum(map(len, self.sampler.pools.values())))
        runner.message_hub.update_scalar("train/p_explore", p_explore)
        runner.message_hub.update_scalar("train/temperature", temperature)

    def _scheduled(self, runner: Runner) -> tuple[float, float]:
        """Exploration probability and temperature now."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        progress = runner.epoch / runner.max_epochs if by_epoch else runner.iter / runner.max_iters
        return exponential_decay(*self.p_explore, progress), exponential_decay(*self.temperature, progress)
