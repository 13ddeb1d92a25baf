"""The README's ImageNet commands at their real size, but for the network's work: ``make rehearse``.

A synthetic ImageNet in the real layout is trained on, tested and exported by ``tools/dist_train.sh``,
``tools/dist_test.sh`` and ``tools/export_subnets.py``, with ``configs/pss/pss_mbv2_flops.py`` and
``configs/pss/pss_mbv1_multi.py``, in gloo processes of one thread each. Settings change paths, batch sizes, numbers of
steps and images, workers, and in tests of a real network ``top_k`` and the calibration batches. Three things are made
up: the GPU latency table of ``pss_mbv1_multi``, which is not shipped; the members of the pools, which a few steps leave
empty; and the network in the final test of ``pss_mbv1_multi``: 437 real ones on 50,000 images would take weeks here.

The configs that run inherit the shipped ones and add a hook that measures (``rehearsal_observer.py``). While it is
trained, all training images are one image, so that the batches of two processes differ by their augmentation alone.
Memory is watched from outside, so that a process is ended before it exhausts the machine.

``report.json`` and ``report.md`` in the work directory have every figure. The exit status is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rehearsal_report import MEMORY_BAR_MIB, write_report

from pss_razor.checkpoints.checkpoint import CHECKPOINT_KEY
from pss_razor.core import PrioritizedSubnetSampler
from pss_razor.engine.launch import load_config
from pss_razor.estimators import LatencyTable
from pss_razor.estimators.latency.measure import find_geometries
from pss_razor.models import build_supernet
from pss_razor.registry import MODELS

from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 1000
# A machine with less begins to swap, or to end programs.
LEAST_AVAILABLE_MIB = 1024

OBSERVED = """_base_ = "{shipped}"
custom_imports = dict(imports=["pss_razor.plugin", "rehearsal_observer", "stub_image_classifier"])
custom_hooks = [dict(type="RehearsalObserver", folder="{folder}")]
"""
# Without channels_last, which would copy each batch for a network that looks at a few of its pixels.
STUB = """model = dict(channels_last=False, architecture=dict(type="StubImageClassifier"))
"""


@dataclass(frozen=True)
class Size:
    """How much of it.

    Args:
        processes: Of a training and a test.
        images: Validation images on disk; all are used in the test with the stub.
        steps: Of a training.
        batch: Images a step and process, where a real network runs.
        tested: Validation images where a real network runs.
        targets: Config -> pools that are exported, as ``--targets`` takes them, or ``none``; all of one not named here.
    """

    processes: int
    images: int
    steps: int
    batch: int
    tested: int
    targets: dict[str, str]


SIZES = {
    "full": Size(8, 50_000, 4, 4, 64, {"pss_mbv1_multi": "flops=110,340,570"}),
    "small": Size(2, CLASSES, 2, 4, 8, {"pss_mbv2_flops": "flops=100", "pss_mbv1_multi": "none"}),
}


@dataclass
class Stage:
    """A command, and what its processes wrote down.

    Args:
        command: As typed.
        seconds: From start to end.
        failure: Why it failed; empty if it did not.
        peak_mib: Largest resident memory of a process that is no data loader's worker.
        peak_of_a_worker_mib: The same of workers, which share most of it with the process that forked them.
        ranks: Of each process, in rank order; see ``rehearsal_observer.py``.
    """

    command: str
    seconds: float = 0.0
    failure: str = ""
    peak_mib: float = 0.0
    peak_of_a_worker_mib: float = 0.0
    ranks: list[dict[str, Any]] = field(default_factory=list)


def make_data(folder: Path, images: int) -> None:
    """An ImageNet of 1000 classes: so many validation images, one training image a class; in ``train_alike`` it is
    the same for all classes.

    Files are links to few, which makes 50,000 of them in seconds. Nothing happens where they are there already.
    """
    done = folder / f"complete_{images}_val_2_train"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    generator = np.random.default_rng(0)
    originals = []
    for number in range(64):
        small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = folder / f"original_{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC)):
            raise OSError(f"OpenCV cannot write {path}")
        originals.append(path)
    for label in range(CLASSES):
        for split, original in (("train", originals[label % len(originals)]), ("train_alike", originals[0])):
            path = folder / split / f"n{label:08d}" / f"n{label:08d}_0.JPEG"
            path.parent.mkdir(parents=True)
            os.link(original, path)
    for number in range(images):
        path = folder / "val" / f"n{number % CLASSES:08d}" / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], path)
    done.touch()


def make_table(path: Path) -> None:
    """A GPU latency table of ``pss_mbv1_multi`` with made-up entries, which grow with a block's work."""
    _, _, graph = build_supernet(load_config(str(ROOT / "configs/pss/pss_mbv1_multi.py"), None, "none", None))
    latencies_us = {
        g: 1.0 + 1e-5 * g.in_size**2 * g.cin * g.cout / (g.stride or 1) ** 2 for g in find_geometries(graph)
    }
    LatencyTable(latencies_us, "cuda", {"made_up": True}).save(path)


def fill_pools(checkpoint: Path, config: Path, options: Sequence[str], out: Path) -> None:
    """Copy a checkpoint with as many members in every pool as fit, drawn for its target and scored at random."""
    settings = load_config(str(config), options, "none", None)
    init_default_scope(settings.default_scope)
    algorithm = MODELS.build(settings.model)
    pool_size = settings.default_hooks.subnet_sampler.pool_size
    sampler = PrioritizedSubnetSampler(algorithm.costs, algorithm.constraints, pool_size)
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    sampler.load_state_dict(content[CHECKPOINT_KEY])
    generator = np.random.default_rng(0)
    for metric, target in sampler.pools:
        indices, resources = sampler.conditional_samplers[metric].draw_many(target, 4 * pool_size, generator)
        for row, resource in zip(indices, resources, strict=True):
            sampler.pools[metric, target].update(sampler.space.decode(row), -generator.random(), float(resource))
    content[CHECKPOINT_KEY] |= sampler.state_dict()
    torch.save(content, out)


class Rehearsal:
    """The commands, one after the other.

    Args:
        size: How much of it.
        work_dir: For everything that is written.

    Attributes:
        stages: What has run, by name.
    """

    def __init__(self, size: Size, work_dir: Path) -> None:
        self.size = size
        self.work_dir = work_dir
        self.stages: dict[str, Stage] = {}

    def run(self) -> None:
        """Everything; a stage that fails ends its config's part."""
        print("making data", flush=True)
        make_data(self.work_dir / "imagenet", self.size.images)
        table = self.work_dir / "mobilenet_v1_gpu_made_up.json"
        make_table(table)
        for stage in self.run_config("pss_mbv2_flops", []):
            print(f"{stage.command}\n  {stage.failure or f'{stage.seconds:.0f} s'}", flush=True)
        for stage in self.run_config("pss_mbv1_multi", [f"model.estimators.latency_gpu.table={table}"], stub=True):
            print(f"{stage.command}\n  {stage.failure or f'{stage.seconds:.0f} s'}", flush=True)

    def run_config(self, name: str, options: list[str], stub: bool = False) -> Iterator[Stage]:
        """Training, test and export of one config.

        Args:
            name: Of a config in ``configs/pss``.
            options: Settings besides the common ones.
            stub: Let a stub be the network of the test, and test it on all images.
        """
        size, folder = self.size, self.work_dir / name
        shutil.rmtree(folder, ignore_errors=True)
        options = [
            *options,
            *(f"{loader}_dataloader.dataset.data_root={self.work_dir}/imagenet" for loader in ("train", "val", "test")),
            *(f"{loader}_dataloader.num_workers=1" for loader in ("train", "val", "test")),
            f"train_dataloader.dataset.indices={size.steps * size.batch * size.processes}",
            f"train_dataloader.batch_size={size.batch}",
        ]
        few = [f"{loader}_dataloader.batch_size={size.batch}" for loader in ("val", "test")]
        few += [f"{loader}_dataloader.dataset.indices={size.tested}" for loader in ("val", "test")]
        few += ["val_cfg.calibration_batches=2", "test_cfg.calibration_batches=2", "test_cfg.top_k=1"]

        train = ["train_dataloader.dataset.data_prefix=train_alike", "train_cfg.max_epochs=1"]
        yield self.launch(f"{name} train", "dist_train.sh", [], [*options, *few, *train])
        if self.stages[f"{name} train"].failure:
            return
        checkpoint = folder / "filled.pth"
        fill_pools(folder / "epoch_1.pth", ROOT / f"configs/pss/{name}.py", options, checkpoint)
        settings = options if stub else [*options, *few]
        yield self.launch(f"{name} test", "dist_test.sh", [checkpoint], settings, stub)
        if size.targets.get(name) == "none":
            return
        arguments = [checkpoint, "--out-dir", folder / "exported"]
        arguments += ["--targets", *size.targets[name].split()] if name in size.targets else []
        yield self.launch(f"{name} export", "export_subnets.py", arguments, [*options, *few])

    def launch(
        self, stage: str, tool: str, arguments: Sequence[object], options: Sequence[str], stub: bool = False
    ) -> Stage:
        """Run a tool on the observed config, and read what its processes wrote."""
        name, task = stage.split()
        folder = self.work_dir / name / f"observed_{task}"
        config = folder / f"{name}.py"
        config.parent.mkdir(parents=True)
        shipped = ROOT / "configs" / "pss" / f"{name}.py"
        config.write_text(OBSERVED.format(shipped=shipped, folder=folder) + (STUB if stub else ""))
        command = [str(ROOT / "tools" / tool), str(config), *map(str, arguments)]
        if tool.endswith(".py"):
            command.insert(0, sys.executable)
        else:
            command.append(str(self.size.processes))
        command += ["--work-dir", str(self.work_dir / name), "--cfg-options", *options]
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = str(server.getsockname()[1])
        environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": f"{ROOT / 'rehearsal'}:{ROOT}",
            "PORT": port,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        result = self.stages[stage] = Stage(" ".join(command))
        start = time.monotonic()
        log = folder / "output.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                result.failure = watch(process, result)
            finally:
                if process.poll() is None:
                    # torchrun's processes are in groups of their own.
                    for pid in (process.pid, *descendants(process.pid)):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    process.wait()
        result.seconds = time.monotonic() - start
        if process.returncode and not result.failure:
            errors = [line for line in log.read_text().splitlines() if re.match(r"(error|[\w.]+Error): ", line)]
            result.failure = f"exit status {process.returncode}, see {log}: {(errors or ['no error line'])[0][:200]}"
        result.ranks = [json.loads(path.read_text()) for path in sorted(folder.glob("rank_*.json"))]
        for rank in result.ranks:
            result.peak_mib = max(result.peak_mib, rank["peak_mib"])
            result.peak_of_a_worker_mib = max(result.peak_of_a_worker_mib, rank["peak_of_a_worker_mib"])
        return result


def watch(process: subprocess.Popen, stage: Stage) -> str:
    """Wait for a command, and note the largest memory of its processes; returns why it is to be ended, if it is."""
    while process.poll() is None:
        for pid in (process.pid, *descendants(process.pid)):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                commands = {Path(f"/proc/{p}/cmdline").read_bytes() for p in (pid, value_of(status, "PPid"))}
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            peak = value_of(status, "VmHWM") / 1024
            if len(commands) == 1:  # forked
                stage.peak_of_a_worker_mib = max(stage.peak_of_a_worker_mib, peak)
            else:
                stage.peak_mib = max(stage.peak_mib, peak)
            if peak > MEMORY_BAR_MIB:
                return f"ended: a process had {peak:.0f} MiB, more than {MEMORY_BAR_MIB} MiB"
        available = value_of(Path("/proc/meminfo").read_text(), "MemAvailable") / 1024
        if available < LEAST_AVAILABLE_MIB:
            return f"ended: the machine had {available:.0f} MiB left, the largest process {stage.peak_mib:.0f} MiB"
        time.sleep(0.5)
    return ""


def descendants(pid: int) -> list[int]:
    """Children of a process, theirs, and so on."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [further for child in children for further in descendants(child)]


def value_of(text: str, name: str) -> int:
    """A number of a file of ``/proc``; 0 where it is missing, as the memory of a process that is ending."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name}:")), 0)


def main() -> None:
    """Rehearse and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", choices=SIZES, default="full", help="small: two processes and 1,000 images (default: full)"
    )
    parser.add_argument(
        "--work-dir", type=Path, default=ROOT / "work_dirs" / "rehearsal", help="for all that is written"
    )
    parser.add_argument("--keep-data", action="store_true", help="keep images and checkpoints; a rerun uses the images")
    args = parser.parse_args()
    work_dir = args.work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    rehearsal = Rehearsal(SIZES[args.size], work_dir)
    rehearsal.run()
    stages = {name: asdict(stage) for name, stage in rehearsal.stages.items()}
    failed = write_report(work_dir, asdict(SIZES[args.size]), stages)
    if not args.keep_data:
        shutil.rmtree(work_dir / "imagenet")
        for checkpoint in work_dir.glob("*/*.pth"):
            checkpoint.unlink()
    sys.exit(f"error: {failed} checks failed" if failed else 0)


if __name__ == "__main__":
    main()
