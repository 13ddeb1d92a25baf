"""The hook that counts what a training costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from pss_razor import compat
from pss_razor.core import AdditiveCost, CheckpointError, Subnet
from pss_razor.engine.hooks.logging_interval import is_about_to_log
from pss_razor.estimators import FlopsEstimator
from pss_razor.evaluation.checks import get_algorithm
from pss_razor.registry import HOOKS

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

TRAINING_COST_KEY = "training_cost"


@HOOKS.register_module()
class TrainingCostHook(Hook):
    """Count the steps, images and multiply-accumulates of a training, over all processes; log and save them.

    A step costs its images times the sum, over the subnets that it ran, of their multiply-accumulates times what the
    algorithm says in ``passes_of_step``: 3 for a forward and a backward pass, 1 for a forward pass alone. All processes
    have as many images in a step.

    Logs have ``images`` and ``gmacs`` (1e9 multiply-accumulates) since the training began. They are saved under one key
    of the checkpoint, and the results of a test have those of the checkpoint that is tested.

    Example:
        ``default_hooks=dict(training_cost=dict(type='TrainingCostHook'))``
    """

    priority = "NORMAL"  # before the logger

    def __init__(self) -> None:
        self._counts: dict[str, int] | None = dict(steps=0, images=0, macs=0)
        # Not yet in the counts: subnet -> images times passes. Adding up many subnets takes about as long as one.
        self._image_passes: Counter[Subnet] = Counter()
        self._cost: AdditiveCost | None = None

    @property
    def cost(self) -> dict[str, int | float] | None:
        """``images``, ``gmacs`` and ``steps`` of the training; None of a checkpoint that does not say."""
        counts = self._add_up()
        if counts is None:
            return None
        return {"images": counts["images"], "gmacs": counts["macs"] / 1e9, "steps": counts["steps"]}

    def add(self, subnets_and_passes: Iterable[tuple[Subnet, int]], images: int) -> None:
        """Add the multiply-accumulates of subnets, and neither images nor steps: of scoring them, say.

        Args:
            subnets_and_passes: Each subnet that ran, and how often its multiply-accumulates count for an image.
            images: How many each of them saw, in all processes together.
        """
        for subnet, passes in subnets_and_passes:
            self._image_passes[subnet] += passes * images

    def before_run(self, runner: Runner) -> None:
        """Find what subnets cost."""
        self._cost = FlopsEstimator().build_cost(get_algorithm(runner).cost_graph)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Count a step; add up and log where the logger is about to write."""
        assert self._counts is not None
        # Of plain PyTorch's loaders a batch is (images, labels).
        inputs = data_batch["inputs"] if isinstance(data_batch, dict) else data_batch[0]
        images = len(inputs) * get_world_size()
        self._counts["steps"] += 1
        self._counts["images"] += images
        self.add(get_algorithm(runner).passes_of_step, images)
        if is_about_to_log(self, runner, batch_idx) and (cost := self.cost) is not None:
            runner.message_hub.update_scalar("train/images", cost["images"])
            runner.message_hub.update_scalar("train/gmacs", cost["gmacs"])

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the counts."""
        checkpoint[TRAINING_COST_KEY] = self._add_up()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take over the counts, unless the checkpoint only initialises a training.

        Raises:
            CheckpointError: The counts are damaged.
        """
        training = compat.is_training(runner)
        if training and not compat.resumes(runner):
            return
        saved = checkpoint.get(TRAINING_COST_KEY)
        if saved is None:
            if training:
                runner.logger.warning(
                    f"the checkpoint does not say what its training cost (key {TRAINING_COST_KEY!r}): images and "
                    "multiply-accumulates count from 0"
                )
            else:
                self._counts = None
            return
        names = ("steps", "images", "macs")
        if not isinstance(saved, dict) or not all(type(saved.get(n)) is int and saved[n] >= 0 for n in names):
            raise CheckpointError(
                f"the checkpoint's {TRAINING_COST_KEY!r} is damaged: it must have whole numbers {', '.join(names)}"
            )
        self._counts = {name: saved[name] for name in names}
        self._image_passes.clear()

    def _add_up(self) -> dict[str, int] | None:
        """The counts with all that was not in them yet."""
        if self._counts is not None and self._image_passes:
            assert self._cost is not None, "found when the run began"
            subnets = list(self._image_passes)
            # Whole numbers, so that the sum does not depend on when it is made.
            macs = np.rint(self._cost(self._cost.space.encode(subnets)) * 1e6).astype(np.int64).tolist()
            self._counts["macs"] += sum(m * self._image_passes[s] for m, s in zip(macs, subnets, strict=True))
            self._image_passes.clear()
        return None if self._counts is None else dict(self._counts)
