"""What the stack (mmengine 0.10.7, mmcv-lite 2.0.1, mmcls 1.0.0rc6, mmrazor 1.0.0) does wrong on today's torch.

The only module that knows of version problems, and of private names of the stack. Everything that imports mmrazor
imports :mod:`pss_razor.registry` first, which calls :func:`apply`. ``tests/test_compat.py`` has a test for each point
that fails when the point is no longer needed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from pss_razor.checkpoints.numpy_stand_ins import numpy_stand_ins
from pss_razor.config import find_config
from pss_razor.core import atomic_write

_QUANTIZATION = "mmrazor.structures.quantization"
_fused_sgd_hook: Any = None


def apply() -> None:
    """Make the stack work. Idempotent; call it before the first import of mmrazor."""
    _stand_in_for_quantization()
    _allow_mmengine_checkpoints()
    _mend_local_files()
    _format_configs_once()
    _skip_first_steps_of_fused_sgd()
    _find_own_configs_by_name()


def _stand_in_for_quantization() -> None:
    """Let mmrazor import on torch >= 2: its quantization structures use names that torch has removed (its #615)."""
    if _QUANTIZATION in sys.modules:
        return
    module = types.ModuleType(_QUANTIZATION, "Stand-in of pss_razor.compat: MMRazor's quantization needs torch < 2.")

    def refuse(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("MMRazor 1.0.0's quantization does not work on torch >= 2")

    names = ("BackendConfigs", "QConfigHandler")
    for name in names:
        setattr(module, name, type(name, (), {"__init__": refuse}))
    module.__all__ = list(names)  # type: ignore[attr-defined]
    sys.modules[_QUANTIZATION] = module


def _allow_mmengine_checkpoints() -> None:
    import torch

    torch.serialization.add_safe_globals([(stand_in, name) for name, stand_in in _checkpoint_stand_ins().items()])


@functools.cache  # a name that is allowed twice has either meaning, at random
def _checkpoint_stand_ins() -> dict[str, Any]:
    """Let ``torch.load(weights_only=True)`` read mmengine's own message hub, which holds ``HistoryBuffer`` objects.

    They pickle their methods through the builtin ``getattr``. Allowing that would hand a malicious file every
    attribute of every allowed object, so its name is served by a function for ``HistoryBuffer`` alone. Nor does a file
    get numpy's functions, with which it can make arrays of pointers (see
    :mod:`pss_razor.checkpoints.numpy_stand_ins`), or a ``HistoryBuffer`` that takes whatever state there is.
    """
    import numpy as np

    from mmengine.logging import HistoryBuffer

    methods = {name: getattr(HistoryBuffer, name) for name in ("mean", "min", "max", "current")}

    class Buffer(HistoryBuffer):
        """Becomes a ``HistoryBuffer`` when its state has been checked."""

        def __setstate__(self, state: dict[str, Any]) -> None:
            histories = {name: state[name] for name in ("_log_history", "_count_history")}
            good = all(isinstance(value, np.ndarray) and value.ndim == 1 for value in histories.values())
            if (
                not good
                or len({len(value) for value in histories.values()}) > 1
                or type(state["max_length"]) is not int
            ):
                raise ValueError("a HistoryBuffer needs two arrays of one length, and max_length")
            if not state.get("statistics_methods", {}).items() <= methods.items():
                raise ValueError("a HistoryBuffer with other methods")
            super().__setstate__({name: value.view(np.ndarray) for name, value in histories.items()})
            self.max_length = state["max_length"]
            self.__class__ = HistoryBuffer

    def history_buffer_method(owner: object, name: str) -> Any:
        # A text, and nothing else shown: comparing or showing what a file makes of tuples may take forever.
        if owner is not Buffer or type(name) is not str or name not in methods:
            raise PermissionError(f"a checkpoint asks for attribute {name if type(name) is str else type(name)!r:.50}")
        return methods[name]

    return numpy_stand_ins() | {
        "mmengine.logging.history_buffer.HistoryBuffer": Buffer,
        "getattr": history_buffer_method,
        "builtins.getattr": history_buffer_method,
    }


def _mend_local_files() -> None:
    """Replace mmengine's local file backend by one that writes to a temporary name and renames, and lists fast.

    The original opens the final name for writing, so a process killed while it saves leaves half a checkpoint. Of each
    file that it lists it works out by ``relpath`` what it has just joined, which takes most of the time.
    """
    from mmengine.fileio import LocalBackend, register_backend

    class MendedLocalBackend(LocalBackend):
        """``LocalBackend`` whose files are either the old or the complete new ones."""

        def put(self, obj: Any, filepath: str | os.PathLike[str]) -> None:
            path = Path(filepath)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, obj.getvalue() if hasattr(obj, "getvalue") else obj)

        def put_text(self, obj: str, filepath: str | os.PathLike[str], encoding: str = "utf-8") -> None:
            self.put(obj.encode(encoding), filepath)

        def list_dir_or_file(
            self,
            dir_path: str | os.PathLike[str],
            list_dir: bool = True,
            list_file: bool = True,
            suffix: str | tuple[str, ...] | None = None,
            recursive: bool = False,
        ) -> Iterator[str]:
            if suffix is not None:
                return super().list_dir_or_file(dir_path, list_dir, list_file, suffix, recursive)
            return _list_folder(dir_path, "", list_dir, list_file, recursive)

    register_backend("local", MendedLocalBackend, force=True, prefixes="")


def _list_folder(
    folder: str | os.PathLike[str], prefix: str, list_dir: bool, list_file: bool, recursive: bool
) -> Iterator[str]:
    """Names below a folder, as mmengine lists them: of files those that are not hidden, of folders all."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if list_dir:
                    yield prefix + entry.name
                if recursive:
                    yield from _list_folder(entry.path, f"{prefix}{entry.name}/", list_dir, list_file, recursive)
            elif list_file and not entry.name.startswith(".") and entry.is_file():
                yield prefix + entry.name


def _format_configs_once() -> None:
    """Let the text of a config be formatted once, and not for each log and each checkpoint: yapf takes 0.2 s."""
    from mmengine.config import config

    if config.FormatCode.__module__ == __name__:
        return
    format_code = config.FormatCode

    @functools.lru_cache(maxsize=4)
    def format_once(text: str, style: tuple, options: tuple) -> Any:
        return format_code(text, style_config=dict(style), **dict(options))

    def format_code_once(text: str, style_config: dict[str, Any], **options: Any) -> Any:
        return format_once(text, tuple(style_config.items()), tuple(options.items()))

    config.FormatCode = format_code_once


def _skip_first_steps_of_fused_sgd() -> None:
    """Keep torch's fused SGD from using uninitialised momentum after a skipped first step.

    ``GradScaler`` sets ``found_inf``, on the device, if gradients overflow. The fused kernel then writes nothing, but
    the momentum allocated for it, uninitialised, counts as that of a first step. Without gradients the step does
    nothing at all, like that of an SGD that is not fused. The device is read only until there is momentum.
    """
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    global _fused_sgd_hook

    def skip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is None or not isinstance(optimizer, torch.optim.SGD):
            return
        starting = [
            parameter
            for group in optimizer.param_groups
            if group["fused"] and group["momentum"]
            for parameter in group["params"]
            if parameter.grad is not None and optimizer.state.get(parameter, {}).get("momentum_buffer") is None
        ]
        if starting and found_inf.item():
            for parameter in starting:
                parameter.grad = None

    if _fused_sgd_hook is None:
        _fused_sgd_hook = register_optimizer_step_pre_hook(skip)


def _find_own_configs_by_name() -> None:
    """Let a config inherit from ``pss_razor::pss/pss_mbv2_flops.py``.

    mmengine accepts only packages in a table of its own, does not find one that is installed as editable, and adds the
    package's name as scope to the types in the config, which are registered in mmrazor's scope, the default.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    if "pss_razor" in MODULE2PACKAGE:
        return
    MODULE2PACKAGE["pss_razor"] = "pss_razor"
    find_path = Config._get_cfg_path

    def find_own_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith("pss_razor::"):
            return str(find_config(cfg_path)), None
        return find_path(cfg_path, filename)

    Config._get_cfg_path = staticmethod(find_own_path)


def mend_predictor_handler(handler: Any) -> None:
    """Repair a handler of MMRazor's ``MetricPredictor``.

    pydacefit indexes plain numbers, which numpy >= 2.1 refuses; arrays of one element mean the same. ``MLPHandler``
    takes its loss from mmdet, which nothing here installs; torch's is the same.
    """
    import torch

    kind = type(handler).__name__
    if kind == "GaussProcessHandler":
        import numpy as np

        for name in ("theta", "tl", "tu"):
            setattr(handler.model, name, np.atleast_1d(getattr(handler.model, name)))
    elif kind == "MLPHandler":
        module: Any = sys.modules[type(handler).__module__]
        if module.SmoothL1Loss.__module__ == "mmrazor.utils.placeholder":
            module.SmoothL1Loss = torch.nn.SmoothL1Loss


@contextlib.contextmanager
def gloo_without_gpu() -> Iterator[None]:
    """While active, mmengine's ``init_dist`` works on a machine without a GPU.

    It calls ``torch.cuda.set_device`` whatever the backend, which raises where there is no driver.
    """
    import torch

    if torch.cuda.is_available():
        yield
        return
    with mock.patch.object(torch.cuda, "set_device", lambda device: None):
        yield


def removed_default_hooks(hooks: dict[str, Any]) -> list[str]:
    """Entries of ``default_hooks`` that are None and not mmengine's; it removes its own only and rejects others."""
    own = {"runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"}
    return [name for name, hook in hooks.items() if hook is None and name not in own]


# What has no public name in mmengine, mmcls and mmrazor.


def is_training(runner: Any) -> bool:
    """Whether a run trains, that is, its training loop is built; reading ``runner.train_loop`` would build it."""
    from mmengine.runner.base_loop import BaseLoop

    return isinstance(runner._train_loop, BaseLoop)


def resumes(runner: Any) -> bool:
    """Whether a run resumes a training."""
    return bool(runner._resume)


def checkpoint_of(runner: Any) -> str | None:
    """The checkpoint that a run loads or resumes; None without one."""
    return runner._load_from


def set_checkpoint(runner: Any, path: Any) -> None:
    """Say which checkpoint has the weights of a run."""
    runner._load_from = None if path is None else str(path)


def set_test_loop(runner: Any, loop: Any) -> None:
    """Let a run test by a loop that is built already."""
    runner._test_loop = loop


@contextlib.contextmanager
def runs_on(device: str | None) -> Iterator[None]:
    """While active, mmengine puts models on a device, such as ``"cpu"`` or ``"cuda:1"``; None leaves it its choice.

    It asks one function, which knows the first kind of device that there is.
    """
    if device is None:
        yield
        return
    with (
        mock.patch("mmengine.runner.runner.get_device", lambda: device),
        mock.patch("mmengine.runner.amp.get_device", lambda: device.partition(":")[0]),
    ):
        yield


def accumulative_counts(optim_wrapper: Any) -> int:
    """Iterations for each optimizer step."""
    return optim_wrapper._accumulative_counts


def register_channel_container(module: Any, container: type) -> None:
    """Give the dynamic ops in a module a container for the mutables of their channels."""
    from mmrazor.models.mutables import OneShotMutableChannelUnit

    OneShotMutableChannelUnit._register_channel_container(module, container)


def candidates_of(op: Any) -> Any:
    """The ops among which a one-shot op chooses, by name."""
    return op._candidates


def normalizes(data_preprocessor: Any) -> bool:
    """Whether a data preprocessor subtracts a mean and divides by a standard deviation."""
    return bool(getattr(data_preprocessor, "_enable_normalize", False))


def download(dataset: Any) -> None:
    """Download the files of an mmcls ``MNIST`` or ``FashionMNIST`` that are not there."""
    dataset._download()


def head_losses(head: Any, logits: Any, data_samples: list) -> dict[str, Any]:
    """Losses of an mmcls head for given logits, and accuracies if its config asks for them."""
    return head._get_loss(logits, data_samples)


def draw_color_jitter(transform: Any) -> tuple[Any, float | None, float | None, float | None, float | None]:
    """What a ``ColorJitter`` draws for an image: the order of its four steps; brightness, contrast, saturation, hue."""
    return transform._rand_params()


def set_epoch(loop: Any, epoch: int) -> None:
    """Let a training loop continue after ``epoch`` epochs."""
    loop._epoch = epoch


def set_search_groups(mutator: Any, groups: dict[str, list]) -> None:
    """Replace the search groups of an MMRazor mutator; ``groups`` is name -> mutables."""
    mutator._search_groups = groups
