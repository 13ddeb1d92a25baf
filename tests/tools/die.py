"""Imported by a training's config: kills the process where the environment variable DIE_AT says.

``iter:9``: before the ninth iteration. ``write:epoch_2.pth``: when half of that file is written.
``renamed:epoch_2.pth``: when it has its final name. ``pointer``: when mmengine has opened ``last_checkpoint`` and not
yet written to it.
"""

import os
import signal
from typing import Any, NoReturn

import pss_razor.registry

import mmengine.hooks.checkpoint_hook
from mmengine.hooks import Hook

where, _, what = os.environ.get("DIE_AT", "").partition(":")


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


@pss_razor.registry.HOOKS.register_module()
class DieHook(Hook):
    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if where == "iter" and runner.iter + 1 >= int(what):
            die()


def fsync(descriptor: int) -> None:
    name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
    if where == "write" and what in name:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        die()
    original_fsync(descriptor)


def replace(source: str, target: str) -> None:
    original_replace(source, target)
    if where == "renamed" and os.path.basename(target) == what:
        die()


def dying_open(path: str, mode: str = "r") -> Any:
    file = open(path, mode)  # noqa: SIM115
    if where == "pointer":
        die()
    return file


original_fsync, os.fsync = os.fsync, fsync
original_replace, os.replace = os.replace, replace
mmengine.hooks.checkpoint_hook.open = dying_open  # type: ignore[attr-defined]
