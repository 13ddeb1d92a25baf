"""The hook that decides when subnets are drawn and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import torch

from pss_razor import compat
from pss_razor.checkpoints.checkpoint import CHECKPOINT_KEY, check_state_dict, get_sampler_state
from pss_razor.core import AdditiveCost, ConfigError, Constraint, Draw, SubnetSampler
from pss_razor.engine.hooks.host_copy import HostCopy
from pss_razor.evaluation.checks import check_dataloader, check_image_size, first_image, get_algorithm
from pss_razor.evaluation.random_state import isolated_random_state

from mmengine.dist import all_gather
from mmengine.hooks import Hook
from mmengine.runner import Runner

_SMALLEST_RESOLUTIONS = ("smallest", "any")


class SubnetSamplerHook(Hook, ABC):
    """Draw subnets before every training iteration and tell the sampler their scores after it.

    Owns the sampler, and saves it under one key of the checkpoint.

    Args:
        seed: Seed of the draws; None takes the runner's.
        num_sampled: Subnets drawn for an iteration, all trained on its batch; 1 in the paper.
        smallest_resolution: Of the smallest subnet of an iteration: ``"smallest"``, or ``"any"``, drawn
            anew for each, as MutualNet (arXiv 1909.12978) trains its narrowest.
    """

    priority = "NORMAL"

    def __init__(self, seed: int | None = None, num_sampled: int = 1, smallest_resolution: str = "smallest") -> None:
        if not isinstance(num_sampled, int) or num_sampled < 1:
            raise ConfigError(f"{type(self).__name__}: num_sampled = {num_sampled!r} must be 1 or more subnets a step")
        if smallest_resolution not in _SMALLEST_RESOLUTIONS:
            raise ConfigError(
                f"smallest_resolution = {smallest_resolution!r} is not known; choose from {list(_SMALLEST_RESOLUTIONS)}"
            )
        self.smallest_resolution = smallest_resolution
        self.seed = seed
        self.num_sampled = num_sampled
        self._sampler: SubnetSampler | None = None
        self._draws: list[Draw] = []

    @abstractmethod
    def build_sampler(
        self, costs: Mapping[str, AdditiveCost], constraints: Sequence[Constraint], seed: int
    ) -> SubnetSampler:
        """The sampler of a run."""

    def draw(self, runner: Runner) -> Draw:
        """A subnet of an iteration; a method whose draws follow a schedule overrides this."""
        return self.sampler.draw()

    def batch_scores(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The scores of a step on this process' batch, float (num_sampled,): minus the subnets' cross-entropies."""
        return outputs["score"]

    @property
    def sampler(self) -> SubnetSampler:
        """The sampler, from ``before_run`` on."""
        if self._sampler is None:
            raise AttributeError("the sampler is built when the run starts")
        return self._sampler

    def before_run(self, runner: Runner) -> None:
        """Build the sampler; report targets that it does not reach."""
        drawing = [type(hook).__name__ for hook in runner.hooks if isinstance(hook, SubnetSamplerHook)]
        if len(drawing) > 1:
            raise ConfigError(
                f"{len(drawing)} hooks draw subnets, {' and '.join(drawing)}; change default_hooks.subnet_sampler "
                "instead of adding one to custom_hooks"
            )
        algorithm = get_algorithm(runner)
        seed = self.seed if self.seed is not None else runner.seed
        self._sampler = self.build_sampler(algorithm.costs, algorithm.constraints, seed)
        if self.smallest_resolution == "any":
            self._sampler.resolutions  # noqa: B018 - raises where there are none
        for metric, sampler in self._sampler.conditional_samplers.items():
            low, high = sampler.resource_range
            unit = algorithm.estimators[metric].unit
            if sampler.unreachable_targets:
                targets = ", ".join(str(target) for target in sampler.unreachable_targets)
                runner.logger.warning(
                    f"{metric}: no subnet has {targets}; reachable are {low:.6g} to {high:.6g} {unit}. Left out."
                )

    def before_train(self, runner: Runner) -> None:
        """Check the optimizer wrapper, and the training images by loading one."""
        accumulative_counts = compat.accumulative_counts(runner.optim_wrapper)
        if accumulative_counts != 1:
            raise ConfigError(
                f"optim_wrapper.accumulative_counts = {accumulative_counts}: PSS steps once an iteration; enlarge "
                "train_dataloader.batch_size instead"
            )
        algorithm = get_algorithm(runner)
        if hasattr(algorithm.architecture, "summary"):
            runner.logger.info(algorithm.architecture.summary())
        if any(algorithm.largest_first):
            alone, rise = algorithm.largest_first
            runner.logger.info(
                f"largest_first: of {runner.max_iters} iterations, the largest subnet is trained alone in the first "
                f"{alone * runner.max_iters:.0f}; the others come in over the next {rise * runner.max_iters:.0f}"
            )
        check_dataloader(algorithm, runner.train_dataloader, "train_dataloader")
        with isolated_random_state(0):  # augmentation draws random numbers
            images = algorithm.data_preprocessor(first_image(runner.train_dataloader), False)["inputs"]
        check_image_size(algorithm, images, "train_dataloader")

    def before_val(self, runner: Runner) -> None:
        """Check that the validation set has batches, and the head's number of classes."""
        check_dataloader(get_algorithm(runner), runner.val_dataloader, "val_dataloader")

    def before_test(self, runner: Runner) -> None:
        """Check that the test set has batches, and the head's number of classes."""
        check_dataloader(get_algorithm(runner), runner.test_dataloader, "test_dataloader")

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw the subnets of this iteration, the same on all ranks; none where the largest is trained alone."""
        algorithm = get_algorithm(runner)
        algorithm.progress = runner.iter / runner.max_iters
        self._draws = [self.draw(runner) for _ in range(self.num_sampled)] if algorithm.student_weight > 0 else []
        algorithm.sampled_subnets = [draw.subnet for draw in self._draws]
        if self._draws and self.smallest_resolution == "any":
            algorithm.smallest_subnet = self.sampler.draw_narrowest()
        if any(algorithm.largest_first):
            runner.message_hub.update_scalar("train/student_weight", algorithm.student_weight)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Tell the sampler the scores, averaged over ranks in rank order so that all ranks have the same bits.

        The sampler reads them when it needs them, mostly some iterations later; reading now would wait for the step.
        """
        if not self._draws:
            return
        assert outputs is not None
        copies = HostCopy(torch.stack(all_gather(self.batch_scores(outputs).reshape(-1)), dim=1))

        def mean_score(index: int) -> float:
            return fmean(copies.tolist()[index])

        for index, draw in enumerate(self._draws):
            self.sampler.update(draw, partial(mean_score, index))
        self._draws = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the state of the sampler."""
        checkpoint[CHECKPOINT_KEY] = self.sampler.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check the weights and restore the sampler, unless the checkpoint only initialises a training."""
        training = compat.is_training(runner)
        if training and not compat.resumes(runner):
            runner.logger.info("load_from initialises the weights only; the pools start empty")
            return
        check_state_dict(get_algorithm(runner), checkpoint["state_dict"])
        self.sampler.load_state_dict(get_sampler_state(checkpoint))
