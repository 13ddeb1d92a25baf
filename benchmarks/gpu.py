"""Everything that needs a GPU, in one call: ``python benchmarks/gpu.py --out gpu.json``.

Images a second of the training step at 224 pixels and batch 256 for MobileNetV2 and ResNet-50, with and without AMP, as
a ratio to static networks of the same three shapes; the share of a step in which no kernel runs; synchronisations of a
step; memory; AutoSlim with MMRazor's masks; evaluation of all pools from JPEG files. ``--device cpu`` with small sizes
tests the script itself.
"""

from __future__ import annotations

import gc
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pool_evaluation
import torch
from autoslim import autoslim_step
from common import Figure, build, main, make_batch
from contenders import Contender, compare_contenders, time_contenders
from training_step import build_contender, middle_subnet, static_step, supernet_step

from pss_razor.estimators.latency.timing import time_call_us

CLASSES = 1000


def precisions(device: str) -> dict[str, dict[str, Any]]:
    """Precision -> options of the optimizer wrapper."""
    if device == "cpu":
        return {"float32": {}, "bfloat16": dict(type="CPUAmpOptimWrapper")}
    return {
        "float32": {},
        "float16": dict(type="AmpOptimWrapper", dtype="float16"),
        "bfloat16": dict(type="AmpOptimWrapper", dtype="bfloat16"),
    }


def busy_seconds(step: Callable[[], None], steps: int) -> float:
    """Seconds of a step in which at least one kernel or copy runs, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    ranges = sorted((e.time_range.start, e.time_range.end) for e in profile.events() if e.device_type == cuda)
    if not ranges:
        raise RuntimeError("torch's profiler recorded no kernel; is CUPTI installed?")
    busy, reached = 0.0, ranges[0][0]
    for start, end in ranges:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy * 1e-6 / steps


def synchronisations(step: Callable[[], None]) -> int:
    """How often one step waits for the device, as far as torch notices."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message).lower() for warning in caught)


def peak_mib(step: Callable[[], None]) -> float:
    """Peak of the memory that torch's allocator has handed out during a step."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def free_memory(device: str) -> None:
    """Free the memory of the last measurement."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def measure_training(name: str, batch: int, side: int, rounds: int, device: str) -> Iterator[Figure]:
    """The training step of one config in all precisions."""
    resolutions = sorted({side * part // 28 for part in range(16, 29)})  # 128, 136, … 224
    options: dict[str, Any] = {
        "model.architecture.resolutions": resolutions,
        "model.constraints": [dict(metric="flops", num_targets=2)],
    }
    images = make_batch(batch, side, CLASSES, device)
    where = f"batch {batch}, {side}x{side}, {device}"
    for precision, wrapper in precisions(device).items():
        free_memory(device)
        algorithm, config = build(f"pss_{name}_flops", **options)
        algorithm.to(device)
        label = f"{name}_{precision}"
        if device == "cuda":
            subnet = middle_subnet(algorithm)
            step = supernet_step(algorithm, config, images, **wrapper)(subnet)
            step()  # gradients and momenta
            memory = peak_mib(step)
            yield Figure(f"{label}_peak_memory", memory, "MiB", f"torch's allocator, supernet alone; {where}")
            yield Figure(f"{label}_synchronisations", synchronisations(step), "a step", where)
            for kind, call in (
                ("supernet", step),
                ("static", static_step(algorithm, config, images, **wrapper)(subnet)),
            ):
                call()
                idle = 1 - busy_seconds(call, 3) * 1e6 / statistics.median(time_call_us(call, device) for _ in range(5))
                yield Figure(f"{label}_{kind}_time_without_kernels", idle * 100, "%", where)
            del step, call
        del algorithm
        free_memory(device)
        make = partial(build_contender, name=f"pss_{name}_flops", batch=batch, sides=resolutions, device=device)
        times = time_contenders(
            {
                label: Contender(partial(make, supernet_step, **wrapper)),
                "static": Contender(partial(make, static_step, **wrapper)),
            },
            rounds,
            torch.get_num_threads(),
            device,
        )
        for kind, seconds in times.items():
            median = statistics.median(seconds)
            yield Figure(
                f"{label}_{'static' if kind == 'static' else 'supernet'}_throughput", batch / median, "images/s",
                f"fresh subnets and resolutions, step {median * 1e3:.1f} ms; {where}",
            )  # fmt: skip
        yield compare_contenders(times, label, "static", "static networks of the same shapes", where)


def measure_memory(batch: int, side: int) -> Iterator[Figure]:
    """Peak memory of a float32 step against the largest static network's, each alone on the device."""
    options = {"model.architecture.resolutions": [side], "model.constraints": [dict(metric="flops", num_targets=2)]}
    for name in ("mbv2", "r50"):
        peaks = {}
        for kind in ("supernet", "largest"):
            free_memory("cuda")
            algorithm, config = build(f"pss_{name}_flops", **options)
            algorithm.to("cuda")
            images = make_batch(batch, side, CLASSES, "cuda")
            if kind == "supernet":
                step = supernet_step(algorithm, config, images)(algorithm.space.smallest)
            else:
                make = static_step(algorithm, config, images, lean=False, only_largest=True)
                step = make(algorithm.space.largest)
                algorithm.architecture.cpu()
            step()
            peaks[kind] = peak_mib(step)
            del algorithm, step
        yield Figure(
            f"{name}_memory_over_largest", peaks["supernet"] / peaks["largest"], "x",
            f"largest static network {peaks['largest']:.0f} MiB, batch {batch}, {side}x{side}", at_most=1.1,
        )  # fmt: skip


def measure_formats(batch: int, side: int, rounds: int, device: str) -> Iterator[Figure]:
    """MobileNetV2 with and without channels_last, and AutoSlim with MMRazor's masked ops; all at one resolution."""
    contiguous = {"model.channels_last": False}
    make = partial(build_contender, name="pss_mbv2_flops", batch=batch, sides=[side], device=device)
    times = time_contenders(
        {
            "channels_last": Contender(partial(make, supernet_step)),
            "contiguous": Contender(partial(make, supernet_step, settings=contiguous)),
            "autoslim_channels_last": Contender(partial(make, autoslim_step, channels_last=True)),
            "autoslim": Contender(partial(make, autoslim_step, channels_last=False, settings=contiguous)),
        },
        rounds,
        torch.get_num_threads(),
        device,
    )
    compare = partial(compare_contenders, times, what="this project", where=f"batch {batch}, {side}x{side}, {device}")
    yield compare("autoslim_channels_last", "channels_last")
    yield compare("autoslim", "contiguous")
    yield compare("contiguous", "channels_last")


def measure(batch: int, side: int, rounds: int, images: int, subnets: int, device: str) -> Iterator[Figure]:
    """Training steps, memory, memory formats and pool evaluation."""
    if device not in ("cuda", "cpu"):
        sys.exit(f"error: --device {device}: choose cuda or cpu")
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: torch sees no GPU here; --device cpu with small sizes only tests this script")
    for name in ("mbv2", "r50"):
        yield from measure_training(name, batch, side, rounds, device)
    if device == "cuda":
        yield from measure_memory(batch, side)
    yield from measure_formats(batch, side, rounds, device)
    yield from pool_evaluation.measure(images, subnets, side, min(batch, images), torch.get_num_threads(), device)


if __name__ == "__main__":
    main(
        measure, "everything that needs a GPU",
        batch=256, side=224, rounds=10, images=256, subnets=47, device="cuda",
    )  # fmt: skip
