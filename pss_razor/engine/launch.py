"""From a config file to a runner: what the command-line tools share."""

from __future__ import annotations

import argparse
import difflib
import gc
import inspect
from collections.abc import Sequence
from pathlib import Path

import torch

from pss_razor import compat
from pss_razor.config import find_config
from pss_razor.core import ConfigError
from pss_razor.host_settings import read_host_settings

from mmengine.config import Config, DictAction
from mmengine.config.utils import ConfigParsingError
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

_REQUIRED = ("model", "train_dataloader", "train_cfg", "optim_wrapper", "test_dataloader", "test_cfg", "test_evaluator")


def load_config(path: str, options: Sequence[str] | None, launcher: str, work_dir: str | None) -> Config:
    """Read a config file and apply what the command line says.

    Args:
        path: Config file, or the name of a shipped one; see :func:`pss_razor.config.find_config`.
        options: ``key=value`` settings of ``--cfg-options``.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``. Without a GPU the processes talk through gloo.
        work_dir: Folder for logs and checkpoints; None takes the config's, or ``work_dirs/<config name>``.

    Raises:
        ConfigError: The file is missing, cannot be read, or lacks a key; or an option is not ``key=value``.
    """
    file = find_config(path)
    try:
        config = Config.fromfile(file)
    except ConfigParsingError as error:
        raise ConfigError(
            f"config {path}: mmengine wants _base_ before any import from a package that is not Python's own: {error}"
        ) from error
    except (SyntaxError, FileNotFoundError, KeyError, NameError, TypeError) as error:
        raise ConfigError(f"config {path} cannot be read: {type(error).__name__}: {error}") from error
    if options:
        config.merge_from_dict(_parse_options(options))
    for key in _REQUIRED:
        if config.get(key) is None:
            known = inspect.signature(Runner.__init__).parameters
            guess = difflib.get_close_matches(key, [k for k in config if k not in known], 1)
            hint = f"; did you mean it by {guess[0]!r}?" if guess else "; see configs/_base_/ for an example"
            raise ConfigError(f"config {path} has no {key!r}{hint}")
    config.launcher = launcher
    if not torch.cuda.is_available():
        config.setdefault("env_cfg", {}).setdefault("dist_cfg", {})["backend"] = "gloo"
    config.work_dir = work_dir or config.get("work_dir") or str(Path("work_dirs", file.stem))
    return config


def build_runner(config: Config) -> Runner:
    """Build the runner of a config, and start the process group where there are several processes.

    A ``RandomStateHook`` is added unless the config says otherwise, so that a training can be resumed exactly.
    """
    if not any(str(hook.get("type")).endswith("RandomStateHook") for hook in config.get("custom_hooks") or ()):
        hooks = config.setdefault("default_hooks", {})
        hooks.setdefault("random_state", dict(type="mmrazor.RandomStateHook"))
    for name in compat.removed_default_hooks(config.get("default_hooks") or {}):
        del config.default_hooks[name]
    with compat.gloo_without_gpu():
        runner = Runner.from_cfg(config) if "runner_type" not in config else RUNNERS.build(config)
    settings = read_host_settings()
    runner.logger.info("machine: %s", settings)
    if not torch.cuda.is_available() and (missing := settings.missing()):
        runner.logger.info("it could be faster: %s", "; ".join(missing))
    return runner


def close_process_group() -> None:
    """Leave the process group, where there is one, as the last thing of a program, when nothing holds its runner.

    mmengine never does, and a process that ends with gloo's threads running can abort after all its work is done. They
    run while anything refers to the group: DDP's reducer does, which a runner holds, and that is part of a cycle.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()


def _parse_options(options: Sequence[str]) -> dict:
    """Parse ``key=value`` by mmengine's action; not in the tools' parsers, since its import would delay ``--help``."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    for option in options:
        if "=" not in option:
            raise ConfigError(f"--cfg-options {option}: settings are key=value, e.g. train_cfg.max_epochs=10")
    return parser.parse_args(["--cfg-options", *options]).cfg_options
