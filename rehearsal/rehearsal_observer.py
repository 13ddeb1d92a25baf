"""What a process of the rehearsal writes down; a custom import of the configs that ``rehearse.py`` makes."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pss_razor.core import PrioritizedSubnetSampler
from pss_razor.datasets import ImageFolder
from pss_razor.engine import loops
from pss_razor.engine.hooks import PrioritizedPoolSamplerHook, SubnetSamplerHook
from pss_razor.evaluation import one_pass
from pss_razor.evaluation.checks import get_algorithm
from pss_razor.evaluation.kept_predictions import KeptPredictions
from pss_razor.evaluation.pool_evaluator import PoolEvaluator
from pss_razor.models import PSS
from pss_razor.registry import HOOKS

from mmcv.transforms import LoadImageFromFile
from mmengine.hooks import Hook
from mmengine.runner import Runner

# Part -> the functions whose time it is, by owner and name. One inside another counts for both.
PARTS: dict[str, list[tuple[Any, str]]] = {
    "dataset listing": [(ImageFolder, "__init__")],
    "sampler build": [(SubnetSamplerHook, "before_run")],
    "draw": [(PrioritizedPoolSamplerHook, "before_train_iter")],
    "score": [(SubnetSamplerHook, "after_train_iter")],
    "training step": [(PSS, "train_step")],
    "network": [(PSS, "forward")],
    "prediction, with its network": [(PoolEvaluator, "_predict")],
    "checkpoint save": [(Runner, "save_checkpoint")],
    "checkpoint load": [(Runner, "load_checkpoint")],
    "calibration": [(PoolEvaluator, "calibrate")],
    "evaluator processing": [(KeptPredictions, "process")],
    "gathering and metrics": [(one_pass, "evaluate_kept_predictions")],
    "results writing": [(loops.pool_test_loop, "write_results")],
}
# Made before data loaders fork their workers, which count too. Folder of the split -> images decoded.
DECODED = {split: multiprocessing.Value("q", 0) for split in ("train", "val")}


def observe() -> dict[str, list[float]]:
    """Time the functions of :data:`PARTS`, and count decoded images; returns the seconds of every call by part."""
    times: dict[str, list[float]] = defaultdict(list)

    def timed(function: Any, part: str) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                times[part].append(time.perf_counter() - start)

        return call

    for part, functions in PARTS.items():
        for owner, name in functions:
            setattr(owner, name, timed(getattr(owner, name), part))
    call_hook, call_hook_of_iteration = Runner.call_hook, timed(Runner.call_hook, "hooks before or after an iteration")

    def call(self: Runner, name: str, **kwargs: Any) -> None:
        (call_hook_of_iteration if name.endswith("_train_iter") else call_hook)(self, name, **kwargs)

    Runner.call_hook = call
    load = LoadImageFromFile.transform

    def counted(self: Any, results: dict[str, Any]) -> Any:
        split = "val" if "/val/" in results["img_path"] else "train"
        with DECODED[split].get_lock():
            DECODED[split].value += 1
        return load(self, results)

    LoadImageFromFile.transform = counted
    return times


TIMES = observe()


@HOOKS.register_module()
class RehearsalObserver(Hook):
    """Writes ``<folder>/rank_<rank>.json`` when the process ends.

    Args:
        folder: Of this stage of the rehearsal.
    """

    priority = "VERY_LOW"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.record: dict[str, Any] = {"moments": {}, "resident_mib": []}
        self.peak_of_batches_mib = 0.0
        self.end_of_iteration: float | None = None
        calibrate = PoolEvaluator.calibrate

        def calibrated(evaluator: PoolEvaluator, subnet: Any) -> Any:
            found = calibrate(evaluator, subnet)
            if subnet == evaluator.algorithm.space.largest:
                # Of the first layer, whose input is the images themselves, and of the last.
                self.record["statistics"] = [tensor.tolist() for pair in (found[0], found[-1]) for tensor in pair]
            return found

        PoolEvaluator.calibrate = calibrated
        atexit.register(self.write)

    def moment(self, name: str) -> None:
        """Seconds since the process started."""
        self.record["moments"].setdefault(name, seconds_since_start())

    def before_run(self, runner: Runner) -> None:
        """The runner is built."""
        self.runner = runner
        self.moment("runner built")

    def before_train_epoch(self, runner: Runner) -> None:
        """Workers start next."""
        self.moment("training begins")
        self.end_of_iteration = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """A batch has come."""
        if batch_idx == 0:
            self.moment("first batch")
            self.record["first_batch"] = digest(data_batch["inputs"])
        else:
            TIMES["waiting for images, after the first batch"].append(time.perf_counter() - self.end_of_iteration)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """The next batch is waited for from now on."""
        self.end_of_iteration = time.perf_counter()
        self.record["iterations"] = runner.iter + 1
        if batch_idx == len(runner.train_dataloader) - 1:
            self.moment("last iteration done")

    def after_train(self, runner: Runner) -> None:
        """Validation and checkpoint are done too."""
        self.moment("training done")

    def before_test_epoch(self, runner: Runner) -> None:
        """BN calibration comes next."""
        self.moment("test begins")

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """All subnets have seen a batch."""
        self.moment("first test batch done")
        self.record["images"] = self.record.get("images", 0) + len(outputs)
        self.record["resident_mib"].append(resident_mib())
        # Batches of images come and go; what gathering takes, whose share grows with the images, is seen without them.
        self.peak_of_batches_mib = max(self.peak_of_batches_mib, peak_mib())
        Path("/proc/self/clear_refs").write_text("5")

    def after_test_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Metrics are computed."""
        self.moment("test done")
        self.record["peak_of_gathering_mib"] = peak_mib()
        results = runner.test_loop.results
        self.record["subnets"] = len({own.subnet for own in results})

    def write(self) -> None:
        """Write the record."""
        sampler = next(hook.sampler for hook in self.runner.hooks if isinstance(hook, SubnetSamplerHook))
        algorithm = get_algorithm(self.runner)
        times = {
            part: {"seconds": sum(calls), "calls": len(calls), "median": statistics.median(calls), "least": min(calls)}
            for part, calls in TIMES.items()
        }
        self.record |= {
            "pools": hashlib.sha256(json.dumps(sampler.state_dict(), sort_keys=True).encode()).hexdigest(),
            "number_of_pools": len(sampler.pools) if isinstance(sampler, PrioritizedSubnetSampler) else 0,
            "parameters": digest(torch.cat([p.detach().flatten() for p in algorithm.parameters()])),
            "decoded": {split: count.value for split, count in DECODED.items()},
            "times": times,
            "peak_mib": max(self.peak_of_batches_mib, peak_mib()),
            "peak_of_a_worker_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        }
        self.moment("end")
        self.folder.mkdir(parents=True, exist_ok=True)
        # The process has left its group already.
        (self.folder / f"rank_{os.environ.get('RANK', 0)}.json").write_text(json.dumps(self.record))


def digest(tensor: Tensor) -> str:
    """Of the values of a tensor."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def resident_mib(field: str = "VmRSS") -> float:
    """Memory of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def peak_mib() -> float:
    """Largest memory of this process so far, or since 5 was written to its ``clear_refs``."""
    return resident_mib("VmHWM")


def seconds_since_start() -> float:
    """Since this process was started, imports included."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - started
