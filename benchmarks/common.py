"""What the benchmarks share: figures, timing in turn, networks and batches."""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pss_razor.core import Subnet, atomic_write
from pss_razor.engine.launch import load_config
from pss_razor.estimators.latency.timing import time_call_us
from pss_razor.host_settings import read_host_settings
from pss_razor.models import PSS, LeanReLU6
from pss_razor.registry import MODELS
from pss_razor.static.trace import make_static

from mmcls.structures import ClsDataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision", "numpy", "mmengine", "mmcls", "mmrazor")


def write_with_picture(path: Path, content: Any, picture: Any) -> None:
    """Write JSON, and a matplotlib figure beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(content, indent=1).encode())
    picture.savefig(path.with_suffix(".png"))
    print(f"written: {path}, {path.with_suffix('.png')}")


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        name: What it is.
        value: The number.
        unit: Its unit; ``x`` for a ratio.
        baseline: What it is compared with, and the conditions.
        at_most: Largest value that is good enough.
        at_least: Smallest value that is good enough.
        spread: Lower and upper quartile of what ``value`` is the median of.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    at_most: float | None = None
    at_least: float | None = None
    spread: tuple[float, float] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def __str__(self) -> str:
        bars = [f"at most {self.at_most:g}"] if self.at_most is not None else []
        bars += [f"at least {self.at_least:g}"] if self.at_least is not None else []
        verdict = [f"bar: {', '.join(bars)}: {'met' if self.met else 'NOT MET'}"] if bars else []
        quartiles = [f"quartiles {self.spread[0]:.4g} to {self.spread[1]:.4g}"] if self.spread else []
        remarks = "; ".join([*quartiles, *[f"baseline {self.baseline}"] * bool(self.baseline), *verdict])
        return f"{self.name}: {self.value:.4g} {self.unit}" + (f" ({remarks})" if remarks else "")


def describe_environment() -> dict[str, Any]:
    """Machine and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "settings": str(read_host_settings()),
        "gpus": gpus,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in PACKAGES},
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def main(measure: Callable[..., Iterable[Figure]], description: str, **options: Any) -> None:
    """The command line of a benchmark: print figures as they come, and write them where ``--out`` says.

    Args:
        measure: Yields figures; its keyword arguments can be set on the command line.
        description: What it measures.
        **options: Those keyword arguments with their defaults.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the figures, with machine and versions, as JSON")
    for name, default in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=" ")
    args = vars(parser.parse_args())
    out = args.pop("out")
    logging.disable(logging.WARNING)
    if "threads" in args:
        torch.set_num_threads(args["threads"])
    print(f"# machine: {read_host_settings()}", flush=True)
    figures = []
    for figure in measure(**args):
        print(figure, flush=True)
        figures.append({**asdict(figure), "met": figure.met})
        if out is not None:  # after each figure, so that an interrupted run keeps those it has
            content = {"environment": describe_environment(), "options": args, "figures": figures}
            atomic_write(out, json.dumps(content, indent=1).encode())


def time_in_turn(calls: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu") -> dict[str, float]:
    """Median seconds of each call; the calls run in turn, round after round, after one warm-up round.

    In turn, so that a slow moment of the machine meets all of them alike.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            elapsed_us = time_call_us(call, device)
            if number:
                samples[name].append(elapsed_us * 1e-6)
    return {name: statistics.median(values) for name, values in samples.items()}


def build(name: str, **options: Any) -> tuple[PSS, Config]:
    """The algorithm of a shipped config with random weights, and the config.

    Args:
        name: File in ``configs/pss`` without ``.py``.
        **options: Settings as for ``--cfg-options``.
    """
    config = load_config(str(ROOT / "configs" / "pss" / f"{name}.py"), None, "none", None)
    config.merge_from_dict(options)
    init_default_scope("mmrazor")
    torch.manual_seed(0)
    algorithm = MODELS.build(config.model)
    algorithm.init_weights()
    return algorithm, config


def build_optimizer(model: nn.Module, config: Config, **options: Any) -> OptimWrapper:
    """The config's optimizer for ``model``, at a learning rate that random labels do not blow up."""
    settings = copy.deepcopy(config.optim_wrapper)
    settings.optimizer.lr = 1e-3
    settings.update(options)
    return build_optim_wrapper(model, settings)


def make_batch(size: int, side: int, classes: int, device: str = "cpu") -> dict[str, Any]:
    """Random 8-bit images (size, 3, side, side) with labels, as a data loader gives them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)
    samples = [ClsDataSample().set_gt_label(int(label)) for label in torch.randint(classes, (size,))]
    return {"inputs": images.to(device), "data_samples": samples}


def make_static_network(algorithm: PSS, subnet: Subnet, lean: bool = False) -> nn.Module:
    """A static network of a subnet's shape, with weights of its own, in training mode and the same memory format.

    Args:
        algorithm: With the supernet.
        subnet: Its shape.
        lean: With this project's ReLU6 instead of torch's.
    """
    side = subnet.get("resolution")
    with algorithm.mutator.active(subnet):
        network = copy.deepcopy(algorithm.architecture)
    network.input_resizer = None
    make_static(network)
    if lean:
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU6):
                    setattr(module, name, LeanReLU6(child.inplace))
    if side != algorithm.space.largest.get("resolution"):
        network.input_resizer = nn.Upsample((side, side), mode="bilinear", align_corners=True)
    if algorithm.channels_last:
        network.to(memory_format=torch.channels_last)
    return network.train()
