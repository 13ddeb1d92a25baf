"""The hook of the method: subnets are drawn from prioritized pools."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from pss_razor import compat
from pss_razor.checkpoints.checkpoint import CHECKPOINT_KEY
from pss_razor.core import (
    AdditiveCost,
    ConfigError,
    Constraint,
    Draw,
    PrioritizedSubnetSampler,
    Rescoring,
    Subnet,
    are_two_numbers,
    build_rescorings,
    exponential_decay,
    is_number,
)
from pss_razor.engine.hooks.subnet_sampler_hook import SubnetSamplerHook
from pss_razor.engine.hooks.training_cost_hook import TrainingCostHook
from pss_razor.evaluation.checks import check_dataloader, get_algorithm
from pss_razor.evaluation.held_out_scores import check_held_out_images, load_held_out_images, score_on
from pss_razor.registry import HOOKS

from mmengine.runner import EpochBasedTrainLoop, Runner

_SCORES = ("loss", "relative", "held_out")
# Below this many visits a pool hardly gains anything (docs/evidence.md).
_FEW_VISITS = 200


@HOOKS.register_module()
class PrioritizedPoolSamplerHook(SubnetSamplerHook):
    """Draw a subnet before every training iteration and tell its pool the score after it (PSS-Net, section 3).

    Without further arguments this is the paper's method; the others change how a score is measured, how often a target
    is drawn and what a pool keeps (``docs/evidence.md`` says what each is worth).

    Args:
        pool_size: Most entries of a pool.
        score_momentum: Weight of the old score when a subnet is visited again.
        p_explore: Probability of a new subnet from the search space, at the start and at the end of training.
        temperature: Softmax temperature of draws from a pool, at the start and at the end.
        score: What a pool learns from a training batch: ``"loss"``, minus the sampled subnet's cross-entropy, as in the
            paper; ``"relative"``, the largest subnet's cross-entropy on the same batch minus the sampled one's;
            ``"held_out"``, nothing: pools are filled by ``rescoring`` alone.
        age_correction: See :class:`~pss_razor.core.PrioritizedPool`.
        min_distance: See :class:`~pss_razor.core.PrioritizedPool`.
        target_power: See :class:`~pss_razor.core.PrioritizedSubnetSampler`; one number for both kinds of draws, or two.
        cost_power: See :class:`~pss_razor.core.PrioritizedSubnetSampler`.
        need: See :class:`~pss_razor.core.PrioritizedSubnetSampler`.
        in_turn: See :class:`~pss_razor.core.PrioritizedSubnetSampler`.
        shared_share: See :class:`~pss_razor.core.PrioritizedSubnetSampler`.
        rescoring: Times at which all pools are scored anew on images held out from training: dicts with ``at``,
            ``images``, ``fresh`` and ``keep``, see :class:`~pss_razor.core.Rescoring`.
        scoring_dataloader: Those images, or their config. They must be neither trained on nor used to choose or test.
        seed: Seed of the draws; None takes the runner's.
        num_sampled: See :class:`SubnetSamplerHook`.
        smallest_resolution: See :class:`SubnetSamplerHook`.

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
        score: str = "loss",
        age_correction: bool = False,
        min_distance: int = 0,
        target_power: float | tuple[float, float] = 0.0,
        cost_power: float = 0.0,
        need: float = 1.0,
        in_turn: bool = False,
        shared_share: float = 0.0,
        rescoring: Sequence[Mapping[str, Any]] = (),
        scoring_dataloader: DataLoader | dict | None = None,
        seed: int | None = None,
        num_sampled: int = 1,
        smallest_resolution: str = "smallest",
    ) -> None:
        for name, value in dict(p_explore=p_explore, temperature=temperature).items():
            if not (are_two_numbers(value) and min(value) > 0):
                raise ConfigError(
                    f"{name} = {value} must be two positive numbers, at the start and the end of training"
                )
        if score not in _SCORES:
            raise ConfigError(f"score = {score!r} is not known; choose from {list(_SCORES)}")
        powers = target_power if isinstance(target_power, Sequence) else (target_power, target_power)
        if not are_two_numbers(powers):
            raise ConfigError(f"target_power = {target_power!r} must be a number, or two: when exploring, from pools")
        if not (is_number(need) and need >= 1):
            raise ConfigError(f"need = {need!r} must be a number of at least 1")
        if not is_number(cost_power):
            raise ConfigError(f"cost_power = {cost_power!r} must be a number")
        if not (is_number(shared_share) and 0 <= shared_share <= 1):
            raise ConfigError(f"shared_share = {shared_share!r} must be a number from 0 to 1")
        if not (type(min_distance) is int and min_distance >= 0):
            raise ConfigError(f"min_distance = {min_distance!r} must be a whole number of groups, at least 0")
        self.rescoring = build_rescorings(rescoring)
        if bool(self.rescoring) != (scoring_dataloader is not None):
            raise ConfigError(
                "rescoring and scoring_dataloader belong together: the times, and images held out from training"
            )
        if score == "held_out" and not self.rescoring:
            raise ConfigError("score = 'held_out' needs rescoring: without it the pools would stay empty")
        super().__init__(seed, num_sampled, smallest_resolution)
        self.pool_size = pool_size
        self.score_momentum = score_momentum
        self.p_explore = p_explore
        self.temperature = temperature
        self.score = score
        self.age_correction = age_correction
        self.min_distance = min_distance
        self.target_power = (powers[0], powers[1])
        self.cost_power = cost_power
        self.need = need
        self.in_turn = in_turn
        self.shared_share = shared_share
        self.scoring_dataloader = scoring_dataloader
        self._scored_on: DataLoader | None = None
        self._rescored = 0

    def build_sampler(
        self, costs: Mapping[str, AdditiveCost], constraints: Sequence[Constraint], seed: int
    ) -> PrioritizedSubnetSampler:
        """The sampler, with empty pools."""
        return PrioritizedSubnetSampler(
            costs,
            constraints,
            self.pool_size,
            self.score_momentum,
            target_power=self.target_power,
            cost_power=self.cost_power,
            need=self.need,
            in_turn=self.in_turn,
            shared_share=self.shared_share,
            learns=self.score != "held_out",
            age_correction=self.age_correction,
            min_distance=self.min_distance,
            seed=seed,
        )

    def draw(self, runner: Runner) -> Draw:
        """Draw with the current exploration probability and temperature."""
        return self.sampler.draw(*self._scheduled(runner))

    def before_train(self, runner: Runner) -> None:
        """Check the images to score on, and say where a pool will be visited too rarely to learn."""
        super().before_train(runner)
        if self.scoring_dataloader is not None:
            self._scored_on = runner.build_dataloader(self.scoring_dataloader, seed=runner.seed)
            check_dataloader(get_algorithm(runner), self._scored_on, "scoring_dataloader")
            for rescoring in self.rescoring:
                check_held_out_images(self._scored_on, rescoring.images)
        probabilities = self.sampler.target_probabilities(explore=False)
        rare = {key: runner.max_iters * p for key, p in probabilities.items() if runner.max_iters * p < _FEW_VISITS}
        if rare and self.sampler.learns:
            (metric, target), visits = min(rare.items(), key=lambda item: item[1])
            runner.logger.warning(
                f"{len(rare)} of {len(probabilities)} pools can expect fewer than {_FEW_VISITS} visits in "
                f"{runner.max_iters} steps, {metric} = {target} about {visits:.0f}: too few for a pool to gain much by "
                "its scores. Train longer, or give the constraints fewer targets"
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw the subnets of this iteration, after scoring pools anew if it is time; log the share of new ones."""
        while self._rescored < len(self.rescoring) and self._progress(runner) >= self.rescoring[self._rescored].at:
            self._rescore(runner, self.rescoring[self._rescored])
            self._rescored += 1
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

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the state of the sampler, and how many times the pools were scored anew."""
        super().before_save_checkpoint(runner, checkpoint)
        if self.rescoring:
            checkpoint[CHECKPOINT_KEY]["rescored"] = self._rescored

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check the weights and restore the sampler, unless the checkpoint only initialises a training."""
        super().after_load_checkpoint(runner, checkpoint)
        if self.rescoring and not (compat.is_training(runner) and not compat.resumes(runner)):
            self._rescored = int(checkpoint[CHECKPOINT_KEY].get("rescored", 0))

    def batch_scores(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The scores of a step, relative to the largest subnet if that is asked for."""
        scores = super().batch_scores(outputs)
        return scores + outputs["largest_ce"] if self.score == "relative" else scores

    def score_held_out(self, runner: Runner, rescoring: Rescoring, subnets: Sequence[Subnet]) -> list[float]:
        """Minus the cross-entropy of subnets on the held-out images of a rescoring."""
        assert self._scored_on is not None
        algorithm = get_algorithm(runner)
        seed = int(np.random.SeedSequence(runner.seed, spawn_key=(self._rescored,)).generate_state(1)[0])
        images, labels = load_held_out_images(algorithm, self._scored_on, rescoring.images, seed)
        return score_on(algorithm, subnets, images, labels)

    def _rescore(self, runner: Runner, rescoring: Rescoring) -> None:
        """Score the entries of all pools, and new subnets, on the same held-out images; keep the best."""
        subnets = {key: list(found) for key, found in self.sampler.to_score(rescoring.fresh).items()}
        # A subnet can be in the pools of several metrics.
        distinct = list(dict.fromkeys(itertools.chain(*subnets.values())))
        scores = dict(zip(distinct, self.score_held_out(runner, rescoring, distinct), strict=True))
        for hook in runner.hooks:
            if isinstance(hook, TrainingCostHook):
                hook.add([(subnet, 1) for subnet in distinct], rescoring.images)
        self.sampler.rescore({key: {s: scores[s] for s in own} for key, own in subnets.items()}, rescoring.keep)
        runner.logger.info(
            f"{len(distinct)} subnets scored anew on {rescoring.images} held-out images; the pools keep "
            f"{sum(map(len, self.sampler.pools.values()))}; dominated by a cheaper target's best: "
            f"{self.sampler.dominated_targets() or 'none'}"
        )

    @staticmethod
    def _progress(runner: Runner) -> float:
        """Share of the training that is over."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        return runner.epoch / runner.max_epochs if by_epoch else runner.iter / runner.max_iters

    def _scheduled(self, runner: Runner) -> tuple[float, float]:
        """Exploration probability and temperature now."""
        progress = self._progress(runner)
        return exponential_decay(*self.p_explore, progress), exponential_decay(*self.temperature, progress)
