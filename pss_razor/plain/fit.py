"""Train a converted network on a data loader of plain PyTorch, without a config file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from pss_razor import compat
from pss_razor.checkpoints.checkpoint import find_latest_checkpoint, read_checkpoint
from pss_razor.config import config_folder
from pss_razor.conversion import Supernet
from pss_razor.core import CheckpointError, ConfigError, PrioritizedPools
from pss_razor.engine.hooks import PrioritizedPoolSamplerHook
from pss_razor.models import PSS, ConvertedImageClassifier, LabelledTensorsDataPreprocessor, SubnetMutator
from pss_razor.plain.labelled_loader import batch_size_of, check_labelled_loader, check_last_batch
from pss_razor.static.static_net import IMAGE_CHANNELS

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

_WARMUP_START = 0.01  # share of the rate
_SCHEDULES = {
    "cosine": dict(type="CosineAnnealingLR", eta_min=0.0),
    "linear": dict(type="PolyLR", power=1.0, eta_min=0.0),
}
# mmengine keeps logs and histories by the name of the run.
_run_numbers = itertools.count()


@dataclass(frozen=True)
class FitResult:
    """A trained supernet; :func:`~pss_razor.plain.evaluate.evaluate` measures the subnets of its pools.

    Args:
        supernet: The supernet that :func:`fit` was given, with trained weights; its largest subnet is active.
        runner: MMEngine's, with hooks, logs and the model around the supernet.
        val_loader: Images that subnets are chosen by, if there are any.
        device: As :func:`fit` was told.
    """

    supernet: Supernet
    runner: Runner
    val_loader: DataLoader | None
    device: str | None

    @property
    def pools(self) -> PrioritizedPools:
        """(metric, target) -> the subnets that trained best."""
        return next(hook.sampler.pools for hook in self.runner.hooks if isinstance(hook, PrioritizedPoolSamplerHook))


def fit(
    supernet: Supernet,
    train_loader: DataLoader,
    *,
    epochs: int,
    val_loader: DataLoader | None = None,
    metric: str | Sequence[str] = "flops",
    num_targets: int = 10,
    targets: Sequence[float] | None = None,
    latency_table: str | os.PathLike[str] | None = None,
    lr: float | None = None,
    weight_decay: float = 1e-4,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    schedule: str | None = "cosine",
    warmup_epochs: int = 0,
    teacher: str = "largest",
    pool_size: int = 50,
    p_explore: tuple[float, float] = (1.0, 0.01),
    temperature: tuple[float, float] = (1.0, 0.01),
    val_interval: int = 10,
    device: str | torch.device | None = None,
    amp: bool = False,
    work_dir: str | os.PathLike[str] = "work_dirs/fit",
    resume: bool = False,
    seed: int = 0,
    log_interval: int = 100,
    log_level: str = "INFO",
) -> FitResult:
    """Train a supernet by Prioritized Subnet Sampling, as ``pss-train`` does with a config (PSS-Net, section 3).

    Logs, and a checkpoint of every epoch (the newest two are kept), are in ``work_dir``. Under torchrun, all processes
    call this, each with a loader that has a ``DistributedSampler``.

    Args:
        supernet: From :func:`pss_razor.convert`; trained in place.
        train_loader: Yields images (N, C, H, W), normalised, of the supernet's largest resolution, with labels (N,), or
            with class probabilities (N, classes) where it mixes images.
        epochs: Passes over ``train_loader``.
        val_loader: Images held out from training, to choose subnets by.
        metric: What has targets: ``"flops"``, ``"params"``, ``"latency_cpu"``; or several of them.
        num_targets: How many, from the smallest to the largest subnet.
        targets: The targets of the only metric instead, evenly spaced: in millions (FLOPs are multiply-accumulates),
            or microseconds.
        latency_table: File of ``pss-latency``, for ``"latency_cpu"``.
        lr: Learning rate of SGD with Nesterov momentum 0.9; None takes 0.3 for 1024 images a step, and in proportion
            for fewer. For a trained network a tenth of that is a start.
        weight_decay: Of SGD, on weights of ordinary convs and linear layers.
        optimizer: Makes another optimizer of the parameters, such as
            ``lambda parameters: torch.optim.AdamW(parameters, 1e-3)``; ``lr`` and ``weight_decay`` are then its own.
        schedule: The learning rate falls to 0 by ``"cosine"`` or ``"linear"``; None keeps it.
        warmup_epochs: Epochs in which it rises from a hundredth, before that.
        teacher: Whose logits subnets learn: the ``"largest"``'s, as in the paper, or those of the ``"original"``, the
            network as it is when this is called, which must be trained.
        pool_size: Most subnets of a pool.
        p_explore: See :class:`~pss_razor.engine.PrioritizedPoolSamplerHook`.
        temperature: The same.
        val_interval: Epochs between evaluations of each pool's best on ``val_loader``; there is one at the end.
        device: Where to train, such as ``"cpu"`` or ``"cuda:1"``; None takes a GPU where there is one.
        amp: Mixed precision: float16 on a GPU, bfloat16 on a CPU.
        work_dir: Folder for logs and checkpoints.
        resume: Continue from the newest checkpoint in ``work_dir``, if there is one.
        seed: Of draws, and of torch's, numpy's and Python's generators.
        log_interval: Iterations between lines of the log.
        log_level: ``"WARNING"`` for a quiet notebook; the log file has no more then.

    Raises:
        ConfigError: An argument cannot work, or ``work_dir`` has another training.
        DataError: The loader has no batch, or labels that are no classes.
        CheckpointError: The checkpoint to resume from is of another network, or of other targets.
    """
    if not isinstance(supernet, Supernet):
        raise ConfigError(
            f"fit trains a supernet, not a {type(supernet).__name__}; make one: pss_razor.convert(model, images)"
        )
    _check_counts(epochs=epochs, val_interval=val_interval, log_interval=log_interval)
    _check_schedule(schedule, warmup_epochs, epochs)
    _check_optimizer(optimizer, lr)
    device = _check_device(device)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    loaders = dict(train_loader=train_loader, val_loader=val_loader)
    for name, loader in loaders.items():
        if loader is not None:
            check_labelled_loader(supernet, loader, name, processes)
    check_last_batch(train_loader, "train_loader")
    constraints = _constraints(metric, num_targets, targets, latency_table)
    checkpoint = _check_work_dir(Path(work_dir), epochs, resume)

    config, recipe = (
        Config.fromfile(config_folder() / "_base_" / name)
        for name in ("algorithms/pss.py", "schedules/imagenet_pss_250e.py")
    )
    config.default_hooks.subnet_sampler |= dict(pool_size=pool_size, p_explore=p_explore, temperature=temperature)
    config.default_hooks.logger.interval = log_interval
    with DefaultScope.overwrite_default_scope("mmrazor"):
        algorithm = _build_algorithm(supernet, constraints, latency_table, teacher)
    on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    optim_wrapper = dict(type="OptimWrapper" if not amp else "AmpOptimWrapper" if on_gpu else "CPUAmpOptimWrapper")
    if optimizer is not None:
        optim_wrapper["optimizer"] = _make_optimizer(optimizer, algorithm)
    else:
        images = processes * batch_size_of(train_loader)
        lr = recipe.optim_wrapper.optimizer.lr * images / recipe.auto_scale_lr.base_batch_size if lr is None else lr
        recipe.optim_wrapper.optimizer |= dict(lr=lr, weight_decay=weight_decay)
        optim_wrapper = {**recipe.optim_wrapper, **optim_wrapper}
    validation: dict[str, Any] = {}
    if val_loader is not None:
        validation = dict(
            val_dataloader=val_loader, val_cfg=config.val_cfg, val_evaluator=accuracy_config(supernet.num_outputs)
        )
    if not on_gpu:
        config.env_cfg.dist_cfg.backend = "gloo"
    with compat.runs_on(device), compat.gloo_without_gpu():
        runner = Runner(
            algorithm,
            str(work_dir),
            train_dataloader=train_loader,
            train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=val_interval),
            optim_wrapper=optim_wrapper,
            param_scheduler=_schedulers(schedule, warmup_epochs, epochs),
            default_hooks=config.default_hooks,
            launcher="pytorch" if processes > 1 else "none",
            env_cfg=config.env_cfg,
            log_level=log_level,
            visualizer=config.visualizer,
            default_scope="mmrazor",
            randomness=dict(seed=seed),
            load_from=None if checkpoint is None else str(checkpoint),
            resume=checkpoint is not None,
            experiment_name=f"fit_{next(_run_numbers)}",
            cfg=Config(dict(model_wrapper_cfg=config.model_wrapper_cfg)),
            **validation,
        )
        if supernet.image_shape[0] != IMAGE_CHANNELS:
            runner.logger.warning(
                f"images of {supernet.image_shape[0]} channels: this trains, but exported networks take "
                f"{IMAGE_CHANNELS}; repeat them in the transforms, as Grayscale(3) does, if you want to export"
            )
        runner.train()
    compat.set_checkpoint(runner, find_latest_checkpoint(work_dir))
    algorithm.mutator.activate(algorithm.space.largest)
    return FitResult(supernet, runner, val_loader, device)


def accuracy_config(num_classes: int) -> dict[str, Any]:
    """The metric: top-1, and top-5 where there are more classes."""
    return dict(type="mmcls.Accuracy", topk=(1, 5) if num_classes > 5 else (1,))


def _build_algorithm(supernet: Supernet, constraints: list[dict[str, Any]], latency_table: Any, teacher: str) -> PSS:
    estimators: dict[str, dict[str, Any]] = dict(flops=dict(type="FlopsEstimator"), params=dict(type="ParamsEstimator"))
    if latency_table is not None:
        estimators["latency_cpu"] = dict(type="LatencyEstimator", table=latency_table, device="cpu")
    return PSS(
        ConvertedImageClassifier(supernet),
        SubnetMutator(),
        constraints,
        estimators,
        input_size=supernet.image_shape[-1],
        channels_last=True,
        teacher=teacher,
        data_preprocessor=LabelledTensorsDataPreprocessor(supernet.num_outputs),
    )


def _make_optimizer(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], algorithm: PSS) -> Any:
    made = make(list(algorithm.parameters()))
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(f"optimizer returned a {type(made).__name__} of the parameters; it must make an optimizer")
    return made


def _schedulers(schedule: str | None, warmup_epochs: int, epochs: int) -> list[dict[str, Any]]:
    """By iteration, as in the configs."""
    common = dict(by_epoch=True, convert_to_iter_based=True)
    warmup = dict(type="LinearLR", start_factor=_WARMUP_START, begin=0, end=warmup_epochs, **common)
    schedulers = [warmup] if warmup_epochs else []
    if schedule is not None:
        schedulers.append(dict(_SCHEDULES[schedule], begin=warmup_epochs, end=epochs, **common))
    return schedulers


def _constraints(
    metric: str | Sequence[str], num_targets: int, targets: Sequence[float] | None, latency_table: Any
) -> list[dict[str, Any]]:
    metrics = [metric] if isinstance(metric, str) else list(metric)
    known = ["flops", "params", "latency_cpu"]
    for name in metrics:
        if name not in known:
            raise ConfigError(f"metric = {name!r} is not known; choose from {known}")
        if name == "latency_cpu" and latency_table is None:
            raise ConfigError("metric = 'latency_cpu' needs latency_table, a file that pss-latency has measured")
    if targets is None:
        return [dict(metric=name, num_targets=num_targets) for name in metrics]
    if len(metrics) != 1:
        raise ConfigError(f"targets = {list(targets)} are of one metric, metric has {metrics}; give num_targets")
    values = [float(target) for target in targets]
    steps = np.diff(values)
    if len(values) < 2 or steps[0] <= 0 or not np.allclose(steps, steps[0]):
        raise ConfigError(f"targets = {list(targets)} must increase evenly, such as [2, 2.5, 3]; or give num_targets")
    return [dict(metric=metrics[0], first=values[0], last=values[-1], step=float(f"{steps[0]:.9g}"))]


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ConfigError(f"{name} = {count!r} must be a whole number of at least 1")


def _check_schedule(schedule: str | None, warmup_epochs: int, epochs: int) -> None:
    if not 0 <= warmup_epochs < epochs:
        raise ConfigError(f"warmup_epochs = {warmup_epochs} must be less than epochs = {epochs}")
    if schedule is not None and schedule not in _SCHEDULES:
        raise ConfigError(f"schedule = {schedule!r} is not known; choose from {list(_SCHEDULES)}, or None")


def _check_optimizer(optimizer: Any, lr: float | None) -> None:
    if optimizer is not None and not callable(optimizer):
        raise ConfigError(
            f"optimizer is a {type(optimizer).__name__}; give a function that makes one of a list of parameters, such "
            "as lambda parameters: torch.optim.AdamW(parameters, 1e-3)"
        )
    if lr is not None and optimizer is not None:
        raise ConfigError(f"lr = {lr} is of the optimizer that there is without optimizer=…; give it to yours instead")
    if lr is not None and not lr > 0:
        raise ConfigError(f"lr = {lr} must be positive")


def _check_device(device: str | torch.device | None) -> str | None:
    if device is None:
        return None
    name = str(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(f"device = {name!r}: under torchrun each process has the GPU of its rank; leave device out")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device = {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return name


def _check_work_dir(work_dir: Path, epochs: int, resume: bool) -> Path | None:
    """The checkpoint to resume from; None where there is none."""
    if work_dir.exists() and not work_dir.is_dir():
        raise ConfigError(f"work_dir = {work_dir} is a file; choose another path")
    checkpoint = find_latest_checkpoint(work_dir)
    if checkpoint is None:
        return None
    if not resume:
        raise ConfigError(
            f"work_dir = {work_dir} has {checkpoint.name} of an earlier training; give resume=True to continue it, or "
            "another work_dir"
        )
    done = read_checkpoint(checkpoint, needs_pools=True).get("meta", {}).get("epoch")
    if not isinstance(done, int):
        raise CheckpointError(f"checkpoint {checkpoint} does not say of which epoch it is; give another work_dir")
    if done > epochs:
        raise ConfigError(f"{checkpoint} has {done} epochs already, more than epochs = {epochs}; raise epochs")
    return checkpoint
