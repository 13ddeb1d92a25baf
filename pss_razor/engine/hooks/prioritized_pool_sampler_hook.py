"""The hook that decides when subnets are drawn and scored."""

from __future__ import annotations

from typing import Any

import torch

from pss_razor.core import CheckpointError, ConfigError, Draw, PrioritizedSubnetSampler, exponential_decay
from pss_razor.engine.checkpoint import CHECKPOINT_KEY, check_state_dict, get_pool_state
from pss_razor.engine.checks import check_dataloader, get_algorithm
from pss_razor.engine.random_state import get_random_state, set_random_state
from pss_razor.registry import HOOKS

from mmengine.dist import all_gather, all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop


@HOOKS.register_module()
class PrioritizedPoolSamplerHook(Hook):
    """Draw a subnet before every training iteration and tell its pool the score after it (PSS-Net, section 3).

    Owns the sampler with its pools and random generator, and saves them, with the random states of all processes,
    under one key of the checkpoint, so that a resumed run equals one that never stopped. (Not for iteration-based
    training, where mmengine reads the past batches again.)

    Args:
        pool_size: Most entries of a pool.
        score_momentum: Weight of the old score when a subnet is visited again.
        p_explore: Probability of a new subnet from the search space, at the start and at the end of training.
        temperature: Softmax temperature of draws from a pool, at the start and at the end.
        seed: Seed of the draws; None takes the runner's.

    Example:
        ``custom_hooks=[dict(type='PrioritizedPoolSamplerHook', pool_size=50)]``

    Attributes:
        sampler: The sampler, from ``before_run`` on.
    """

    priority = "NORMAL"
    sampler: PrioritizedSubnetSampler

    def __init__(
        self,
        pool_size: int = 50,
        score_momentum: float = 0.9,
        p_explore: tuple[float, float] = (1.0, 0.01),
        temperature: tuple[float, float] = (1.0, 0.01),
        seed: int | None = None,
    ) -> None:
        for name, value in dict(p_explore=p_explore, temperature=temperature).items():
            if len(value) != 2 or not all(v > 0 for v in value):
                raise ConfigError(
                    f"{name} = {value} must be two positive numbers, at the start and the end of training"
                )
        self.pool_size = pool_size
        self.score_momentum = score_momentum
        self.p_explore = p_explore
        self.temperature = temperature
        self.seed = seed
        self._draw: Draw | None = None
        self._process_states: list[dict[str, Any]] | None = None
        self._resumed: dict[str, Any] | None = None

    def before_run(self, runner: Runner) -> None:
        """Build the sampler; report targets that no subnet reaches."""
        algorithm = get_algorithm(runner)
        seed = self.seed if self.seed is not None else runner.seed
        self.sampler = PrioritizedSubnetSampler(
            algorithm.costs, algorithm.constraints, self.pool_size, self.score_momentum, seed
        )
        for metric, sampler in self.sampler.samplers.items():
            low, high = sampler.resource_range
            unit = algorithm.estimators[metric].unit
            if sampler.unreachable_targets:
                targets = ", ".join(str(target) for target in sampler.unreachable_targets)
                runner.logger.warning(
                    f"{metric}: no subnet has {targets}; reachable are {low:.6g} to {high:.6g} {unit}. Left out."
                )

    def before_train(self, runner: Runner) -> None:
        """Check what would fail late, and continue the random states of a resumed run."""
        accumulative_counts = runner.optim_wrapper._accumulative_counts
        if accumulative_counts != 1:
            raise ConfigError(
                f"optim_wrapper.accumulative_counts = {accumulative_counts}: PSS steps once an iteration; enlarge "
                "train_dataloader.batch_size instead"
            )
        check_dataloader(get_algorithm(runner), runner.train_dataloader, "train_dataloader")
        if self._resumed is not None:
            processes = self._resumed["processes"]
            if len(processes) != get_world_size():
                runner.logger.warning(
                    f"the checkpoint is of {len(processes)} processes, this run has {get_world_size()}: pools "
                    "continue, but the order of images does not"
                )
            if not isinstance(runner.train_loop, EpochBasedTrainLoop):
                runner.logger.warning(
                    "by_epoch=False: pools continue, but random states and the order of images do not"
                )
            set_random_state(processes[get_rank() % len(processes)])
            data_sampler = runner.train_dataloader.sampler
            if hasattr(data_sampler, "seed"):
                data_sampler.seed = self._resumed["data_seed"]
            self._resumed = None

    def before_val(self, runner: Runner) -> None:
        """Check the validation set."""
        check_dataloader(get_algorithm(runner), runner.val_dataloader, "val_dataloader")

    def before_test(self, runner: Runner) -> None:
        """Check the test set."""
        check_dataloader(get_algorithm(runner), runner.test_dataloader, "test_dataloader")

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw the subnet of this iteration, the same on all ranks."""
        p_explore, temperature = self._scheduled(runner)
        self._draw = self.sampler.draw(p_explore, temperature)
        get_algorithm(runner).sampled_subnet = self._draw.subnet

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Tell the pool the score, averaged over ranks in rank order so that all ranks have the same bits."""
        assert self._draw is not None and outputs is not None
        scores = all_gather(outputs["score"].reshape(1))
        self.sampler.update(self._draw, sum(float(score) for score in scores) / len(scores))
        runner.message_hub.update_scalar("train/explored", float(self._draw.explored))
        self._draw = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Log how full the pools are; collect the random states of all processes for the checkpoint."""
        pools = list(self.sampler.pools.values())
        p_explore, temperature = self._scheduled(runner)
        runner.message_hub.update_scalar("train/pool_entries", sum(map(len, pools)))
        runner.message_hub.update_scalar("train/p_explore", p_explore)
        runner.message_hub.update_scalar("train/temperature", temperature)
        self._process_states = all_gather_object(get_random_state())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add pools, sampler and random states."""
        # Without an epoch's end behind it, only this process' own state is at hand.
        processes = self._process_states if get_world_size() > 1 and self._process_states else [get_random_state()]
        checkpoint[CHECKPOINT_KEY] = {
            **self.sampler.state_dict(),
            "processes": processes,
            "data_seed": getattr(runner.train_dataloader.sampler, "seed", None),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of this model; take over its pools, unless it only initialises a training."""
        training = isinstance(runner._train_loop, BaseLoop)
        if training and not runner._resume:
            runner.logger.info("load_from initialises the weights only; the pools start empty")
            return
        check_state_dict(get_algorithm(runner), checkpoint["state_dict"])
        state = get_pool_state(checkpoint)
        if training and not state["processes"]:
            raise CheckpointError("the checkpoint was imported and cannot be resumed; start from it with load_from")
        self.sampler.load_state_dict(state)
        self._resumed = state if training else None

    def _scheduled(self, runner: Runner) -> tuple[float, float]:
        """Exploration probability and temperature now."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        progress = runner.epoch / runner.max_epochs if by_epoch else runner.iter / runner.max_iters
        return exponential_decay(*self.p_explore, progress), exponential_decay(*self.temperature, progress)
