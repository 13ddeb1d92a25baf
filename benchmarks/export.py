"""Export of digits subnets with random weights in all formats: ``python benchmarks/export.py``.

The same networks by as many processes as there are cores, by this one alone, and as version 0.1 did it: each format
traces the network, and torch decomposes for ONNX what it traced.
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from common import ROOT, Figure, main

from pss_razor.core import EvaluatedSubnet, build_conditional_sampler, usable_cores
from pss_razor.engine.launch import build_runner, load_config
from pss_razor.evaluation.pool_evaluator import PoolEvaluator
from pss_razor.export import formats, onnx_export
from pss_razor.export.exporter import export_subnets

CONFIG = ROOT / "configs" / "pss" / "pss_mbv2_flops_digits.py"


def draw_subnets(evaluator: PoolEvaluator, count: int) -> list[EvaluatedSubnet]:
    """A random subnet of each of the first targets, with an accuracy that is made up."""
    algorithm = evaluator.algorithm
    (constraint,) = algorithm.constraints
    sampler = build_conditional_sampler(algorithm.costs["flops"], constraint)
    generator = np.random.default_rng(0)
    subnets = []
    for rank, target in enumerate(constraint.targets[:count]):
        indices, _ = sampler.draw_many(target, 1, generator)
        resources = {metric: float(cost(indices)[0]) for metric, cost in algorithm.costs.items()}
        subnets.append(
            EvaluatedSubnet(
                name=f"flops_{target}",
                metric="flops",
                target=target,
                rank=0,
                subnet=algorithm.space.decode(indices[0]),
                score=0.0,
                resources=resources,
                metrics={"accuracy/top1": float(rank)},
                selected_by="score",
            )
        )
    return subnets


@contextlib.contextmanager
def tracing_for_each_format() -> Iterator[None]:
    """Export as version 0.1 did."""

    def trace(network: formats.NetworkWithExample) -> object:
        return formats.trace_program(network.net, network.example)

    with (
        mock.patch.object(formats.NetworkWithExample, "program", property(trace)),
        mock.patch.object(onnx_export, "LoweredProgram", lambda program: program),
    ):
        yield


def cpu_s() -> float:
    """CPU seconds of this process, and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(subnets: int, rounds: int, jobs: int) -> Iterator[Figure]:
    """Seconds and CPU seconds a subnet, of the three ways in turn."""
    with tempfile.TemporaryDirectory() as folder:
        runner = build_runner(load_config(str(CONFIG), ["visualizer.vis_backends=[]"], "none", folder))
        runner.call_hook("before_run")
        evaluator = runner.test_loop.build_evaluator_of_pools()
        chosen = draw_subnets(evaluator, subnets)

        def export(count: int, processes: int) -> tuple[float, float]:
            names = [*formats.FORMATS, formats.BUNDLE]
            with tempfile.TemporaryDirectory() as out:
                start, cpu_start = time.perf_counter(), cpu_s()
                export_subnets(evaluator, chosen[:count], runner.test_dataloader, Path(out), names, jobs=processes)
                return (time.perf_counter() - start) / count, (cpu_s() - cpu_start) / count

        export(1, 1)  # imports torch's exporters
        samples: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for number in dict.fromkeys((jobs, 1)):
                samples.setdefault(f"jobs_{number}", []).append(export(subnets, number))
            with tracing_for_each_format():
                samples.setdefault("as_in_0.1", []).append(export(subnets, 1))
    medians = {name: [statistics.median(values) for values in zip(*own, strict=True)] for name, own in samples.items()}
    (old_s, old_cpu_s) = medians["as_in_0.1"]
    for name, (seconds, cpu) in medians.items():
        yield Figure(f"export_a_subnet_{name}", seconds, "s", f"{old_s:.3g} s as in 0.1")
        yield Figure(f"export_a_subnet_{name}_cpu", cpu, "CPU s", f"{old_cpu_s:.3g} CPU s as in 0.1")


if __name__ == "__main__":
    main(measure, "export in four formats", subnets=9, rounds=1, jobs=usable_cores())
