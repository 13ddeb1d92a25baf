"""The hook of random numbers: each process has its own, and a resumed training continues them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from pss_razor import compat
from pss_razor.checkpoints.checkpoint import CHECKPOINT_KEY, RANDOM_STATE_KEY, check_state_dict
from pss_razor.core import CheckpointError
from pss_razor.evaluation.checks import get_model
from pss_razor.evaluation.random_state import get_random_state, seed_generators, set_random_state
from pss_razor.models import SubnetMutator
from pss_razor.registry import HOOKS

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save the random states of all processes, so that a training resumed at an epoch equals one that never stopped.

    Every training has this hook, unless ``default_hooks.random_state`` is None. mmengine seeds all processes alike.
    Here only the first keeps its seed, so that augmentation in the main processes differs between ranks. What must be
    the same on all ranks, such as the path that SPOS trains, comes from the generator of :class:`SubnetMutator`.
    Validation leaves random states as they were.

    An iteration-based training does not resume exactly: mmengine reads the past batches again.

    Example:
        ``default_hooks=dict(random_state=dict(type='RandomStateHook'))``
    """

    priority = "NORMAL"

    def __init__(self) -> None:
        self._process_states: list[dict[str, Any]] | None = None
        self._before_validation: dict[str, Any] | None = None
        self._resumed: dict[str, Any] | None = None

    def before_train(self, runner: Runner) -> None:
        """Seed this process, or continue the random states of a resumed training."""
        mutator = getattr(get_model(runner), "mutator", None)
        if isinstance(mutator, SubnetMutator):
            mutator.generator = np.random.default_rng(runner.seed)
        if self._resumed is None:
            # MMRazor's own mutators draw from the global generators, which must then be the same on all ranks.
            if get_rank() and (mutator is None or isinstance(mutator, SubnetMutator)):
                seed_generators(runner.seed, get_rank())
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
        if get_rank() < len(processes):
            try:
                set_random_state(processes[get_rank()])
                for generator, own in zip(
                    _generators(runner.train_dataloader), state.get("loader") or (), strict=False
                ):
                    generator.set_state(own.cpu())
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
                raise CheckpointError(f"the checkpoint's random states are damaged: {error!r}") from error
        else:
            seed_generators(runner.seed, get_rank(), runner.epoch)
        if isinstance(mutator, SubnetMutator) and state.get("choices") is not None:
            assert mutator.generator is not None, "made when the training began"
            mutator.generator.bit_generator.state = state["choices"]
        data_sampler = runner.train_dataloader.sampler
        if hasattr(data_sampler, "seed"):
            data_sampler.seed = state["data_seed"]

    def after_train_epoch(self, runner: Runner) -> None:
        """Collect the random states of all processes for the checkpoint."""
        self._process_states = all_gather_object(get_random_state())

    def before_val(self, runner: Runner) -> None:
        """Keep the random states: a training that is resumed at this epoch does not validate it again."""
        self._before_validation = get_random_state()

    def after_val(self, runner: Runner) -> None:
        """Restore the random states from before validation: even starting a data loader draws a number."""
        assert self._before_validation is not None
        set_random_state(self._before_validation)
        self._before_validation = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the random states of all processes, of choices, and the seed of the order of images."""
        # With one process, or before the first epoch has ended, only this process' own state is at hand.
        own = [self._before_validation or get_random_state()]
        processes = self._process_states if get_world_size() > 1 and self._process_states else own
        mutator = getattr(get_model(runner), "mutator", None)
        generator = mutator.generator if isinstance(mutator, SubnetMutator) else None
        checkpoint[RANDOM_STATE_KEY] = {
            "processes": processes,
            "choices": None if generator is None else generator.bit_generator.state,
            "data_seed": getattr(runner.train_dataloader.sampler, "seed", None),
            "loader": [generator.get_state() for generator in _generators(runner.train_dataloader)],
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """If a training is resumed, keep its states, and check the weights: mmengine would accept another model's.

        Raises:
            CheckpointError: The checkpoint is of another model, was imported from another program, or is damaged.
        """
        if not (compat.is_training(runner) and compat.resumes(runner)):
            return
        check_state_dict(get_model(runner), checkpoint["state_dict"])
        self._resumed = _find_random_states(checkpoint)
        if self._resumed is None:
            runner.logger.warning(
                f"the checkpoint has no random states (key {RANDOM_STATE_KEY!r}): the resumed training is not the one "
                "that stopped"
            )
        elif not self._resumed["processes"]:
            raise CheckpointError("the checkpoint was imported and cannot be resumed; start from it with load_from")


def _generators(loader: DataLoader) -> list[torch.Generator]:
    """A loader's own generators, where it does not draw from torch's global one; the same on all ranks."""
    owners = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    found = (getattr(owner, "generator", None) for owner in owners)
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def _find_random_states(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """The random states of a checkpoint; version 0.1 kept those of PSS in the sampler's state."""
    own, sampler = checkpoint.get(RANDOM_STATE_KEY), checkpoint.get(CHECKPOINT_KEY)
    if own is None and isinstance(sampler, dict) and "processes" in sampler:
        own = sampler
    if own is not None and not (isinstance(own, dict) and isinstance(own.get("processes"), list)):
        raise CheckpointError(f"the checkpoint's {RANDOM_STATE_KEY!r} is damaged: it has no list of 'processes'")
    return own
