"""Memory of a training step, against the static largest network's: ``python benchmarks/training_memory.py``.

Peak resident memory of a process of its own for each (on a CPU, torch keeps no account), minus what it has before the
first step.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import torch
from common import Figure, build, build_optimizer, main, make_batch, make_static_network
from torch.nn import functional as F

SUPERNET, LARGEST, PLAIN = "supernet", "largest", "largest_with_plain_relu6"


def peak_mib(kind: str, batch: int, side: int) -> float:
    """Growth of this process' peak resident memory over three steps."""
    torch.set_num_threads(1)
    options = {
        "model.architecture.resolutions": [side],
        "model.constraints": [dict(metric="flops", num_targets=2)],
    }
    algorithm, config = build("pss_mbv2_flops", **options)
    images = make_batch(batch, side, 1000)
    network = None if kind == SUPERNET else make_static_network(algorithm, algorithm.space.largest)
    if kind == LARGEST:
        network = algorithm.architecture.train()
    optimizer = build_optimizer(network or algorithm, config)
    algorithm.train()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        if kind == SUPERNET:
            algorithm.sampled_subnet = algorithm.space.smallest
            algorithm.train_step(dict(images), optimizer)
            continue
        data = algorithm.data_preprocessor(dict(images), True)
        inputs = data["inputs"].contiguous(memory_format=torch.channels_last)
        labels = torch.cat([sample.gt_label.label for sample in data["data_samples"]])
        optimizer.update_params(F.cross_entropy(network(inputs, mode="tensor"), labels))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure(batch: int, side: int, kind: str) -> Iterator[Figure]:
    """One process for each network; ``kind`` is for those processes."""
    if kind:
        yield Figure(kind, peak_mib(kind, batch, side), "MiB")
        return
    peaks = {}
    for name in (SUPERNET, LARGEST, PLAIN):
        command = [sys.executable, __file__, "--kind", name, "--batch", str(batch), "--side", str(side)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks[name] = float(out.split(f"{name}: ")[1].split()[0])
    where = f"batch {batch}, {side}x{side}"
    yield Figure("supernet_step_memory", peaks[SUPERNET], "MiB", where)
    yield Figure(
        "supernet_memory_over_largest", peaks[SUPERNET] / peaks[LARGEST], "x",
        f"the largest network alone, with this project's ReLU6 too, {peaks[LARGEST]:.0f} MiB",
    )  # fmt: skip
    yield Figure(
        "supernet_memory_over_plain_largest", peaks[SUPERNET] / peaks[PLAIN], "x",
        f"the same with torch's ReLU6, {peaks[PLAIN]:.0f} MiB", at_most=1.1,
    )  # fmt: skip


if __name__ == "__main__":
    main(measure, "memory of training", batch=64, side=128, kind="")
