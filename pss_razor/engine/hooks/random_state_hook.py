"""The hook that continues random numbers where a stopped training left them."""

from __future__ import annotations

from typing import Any

from pss_razor.engine.random_state import get_random_state, set_random_state
from pss_razor.registry import HOOKS

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save the random states of all processes, so that a training resumed at an epoch equals one that never stopped.

    Not for iteration-based training, where mmengine reads the past batches again.

    Example:
        ``custom_hooks=[dict(type='RandomStateHook')]``
    """

    priority = "NORMAL"
    random_state_key = "random_state"

    def __init__(self) -> None:
        self._process_states: list[dict[str, Any]] | None = None
        self._resumed: dict[str, Any] | None = None

    def before_train(self, runner: Runner) -> None:
        """Continue the random states of a resumed training."""
        if self._resumed is None:
            return
        state, self._resumed = self._resumed, None
        processes = state["processes"]
        if len(processes) != get_world_size():
            runner.logger.warning(
                f"the checkpoint is of {len(processes)} processes, this run has {get_world_size()}: the order of "
                "images does not continue"
            )
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.logger.warning("by_epoch=False: random states and the order of images do not continue")
        set_random_state(processes[get_rank() % len(processes)])
        data_sampler = runner.train_dataloader.sampler
        if hasattr(data_sampler, "seed"):
            data_sampler.seed = state["data_seed"]

    def after_train_epoch(self, runner: Runner) -> None:
        """Collect the random states of all processes for the checkpoint."""
        self._process_states = all_gather_object(get_random_state())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the random states."""
        checkpoint[self.random_state_key] = self.random_states(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take the states over, where a training is resumed."""
        if not (isinstance(runner._train_loop, BaseLoop) and runner._resume):
            return
        self._resumed = checkpoint.get(self.random_state_key)
        if self._resumed is None:
            runner.logger.warning(
                f"the checkpoint has no random states (key {self.random_state_key!r}): the resumed training is not "
                "the one that stopped"
            )

    def random_states(self, runner: Runner) -> dict[str, Any]:
        """The random states of all processes and the seed of the order of images."""
        # Without an epoch's end behind it, only this process' own state is at hand.
        processes = self._process_states if get_world_size() > 1 and self._process_states else [get_random_state()]
        return {"processes": processes, "data_seed": getattr(runner.train_dataloader.sampler, "seed", None)}
