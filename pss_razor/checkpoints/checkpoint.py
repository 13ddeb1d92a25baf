"""Checkpoints: found, read and checked before any long work starts."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pss_razor.checkpoints.checkpoint_check import check_checkpoint
from pss_razor.checkpoints.pickle_check import UnknownNameError, check_extent
from pss_razor.core import CheckpointError

CHECKPOINT_KEY = "pss"
RANDOM_STATE_KEY = "random_state"


def find_latest_checkpoint(work_dir: str | os.PathLike[str]) -> Path | None:
    """The newest ``epoch_N.pth`` or ``iter_N.pth`` of a work directory; None if there is none.

    mmengine's pointer file ``last_checkpoint`` is not asked: a process killed at the wrong moment leaves it empty or
    out of date, whereas a checkpoint under its final name is complete.
    """
    found = [(match, path) for path in Path(work_dir).glob("*.pth") if (match := _NUMBERED.fullmatch(path.name))]
    return max(found, key=lambda item: int(item[0][1]))[1] if found else None


_NUMBERED = re.compile(r"(?:epoch|iter)_(\d+)\.pth")


def read_checkpoint(path: str | os.PathLike[str], needs_pools: bool) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Args:
        path: A file that mmengine's runner wrote.
        needs_pools: Whether it must have a sampler's state: prioritized pools, or a baseline's.

    Returns:
        Its content; tensors stay mapped to the file until they are used.

    Raises:
        CheckpointError: The file is missing, truncated, not a checkpoint, unsafe, or lacks the state that is needed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist{_nearby(path)}")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
        problem = "is truncated; copy it again or take an earlier one" if is_archive else "is not a torch checkpoint"
        raise CheckpointError(f"checkpoint {path} ({path.stat().st_size} bytes) {problem}")
    checkpoint = load_checked(path, lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        keys = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise CheckpointError(f"{path} is not a checkpoint of pss-train: no 'state_dict' in {keys}")
    if needs_pools:
        get_sampler_state(checkpoint, path)
    return checkpoint


def load_checked(path: Path, load: Callable[[], Any], may_have_history: bool = True) -> Any:
    """Check that a file of ``torch.save`` can be read safely, then return what ``load`` reads from it.

    Args:
        path: The file.
        load: Calls ``torch.load`` on it, with ``weights_only``.
        may_have_history: Whether MMEngine's ``HistoryBuffer`` may be in it.

    Raises:
        CheckpointError: The file is damaged, or unsafe.
    """
    try:
        check_checkpoint(path, may_have_history)
        content = load()
        check_extent(content, path.stat().st_size)
        return content
    except UnknownNameError as error:
        raise CheckpointError(
            f"checkpoint {path} holds more than tensors and plain values, refused: it asks for {error}"
        ) from error
    except Exception as error:  # whatever damaged bytes make of the readers; nothing of this project runs in there
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"checkpoint {path} cannot be read, it is damaged or not a checkpoint: {reason:.300}"
        ) from error


def get_sampler_state(
    checkpoint: Mapping[str, Any], source: str | os.PathLike[str] = "the checkpoint"
) -> dict[str, Any]:
    """The state that the sampler hook saved.

    Raises:
        CheckpointError: The checkpoint has none, or it is not a table.
    """
    if CHECKPOINT_KEY not in checkpoint:
        raise CheckpointError(
            f"{source} has no prioritized pools (key {CHECKPOINT_KEY!r}): it was not trained with "
            "PrioritizedPoolSamplerHook or a baseline's hook, so there are no subnets to evaluate, export or resume"
        )
    state = checkpoint[CHECKPOINT_KEY]
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(
            f"{source} has no state of a sampler under {CHECKPOINT_KEY!r}, but a {type(state).__name__}"
        )
    return state


def check_state_dict(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Check that a checkpoint's weights are those of ``model``.

    Raises:
        CheckpointError: They are no table of tensors, or of another model; names the first difference.
    """
    if not isinstance(state_dict, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state_dict.items()
    ):
        raise CheckpointError("the checkpoint's 'state_dict' is not a table of tensors")
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    saved = {name.removeprefix("module."): tensor.shape for name, tensor in state_dict.items()}
    missing, extra = sorted(set(own) - set(saved)), sorted(set(saved) - set(own))
    if missing or extra:
        what = f"{missing[0]} is missing" if missing else f"{extra[0]} is not in the model"
        raise CheckpointError(
            f"the checkpoint is of another model: {what} ({len(missing)} tensors missing, {len(extra)} too many of "
            f"{len(own)}); use the config that it was trained with{_which_subnet(missing + extra)}"
        )
    for name, shape in own.items():
        if saved[name] != shape:
            head = "head." in name
            what = "another number of classes" if head else "another backbone"
            raise CheckpointError(
                f"the checkpoint has {what}: {name} is {tuple(saved[name])} there and {tuple(shape)} in the model"
                + ("; set model.architecture.head.num_classes to match" if head else "")
            )


def _which_subnet(names: list[str]) -> str:
    """End of an error message where ops have been chosen: the settings that say which."""
    chosen = any("._candidates." in name for name in names)
    return ", and the model.init_cfg.checkpoint or model.fix_subnet that says which subnet it is" if chosen else ""


def _nearby(path: Path) -> str:
    others = sorted(p.name for p in path.parent.glob("*.pth")) if path.parent.is_dir() else []
    return f"; {path.parent} has {', '.join(others[-3:])}" if others else f" (no checkpoint in {path.parent} either)"
