"""One file for many untrained subnets, and switching among them: ``python benchmarks/bundle.py``."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import Figure, build, main, time_in_turn
from torch import nn

from pss_razor.core import build_conditional_sampler
from pss_razor.deploy import AdaptiveModel, load_subnet, save_subnet
from pss_razor.deploy.bundle import BundledSubnet, round_bn_statistics, save_bundle
from pss_razor.models.static_subnet import static_subnet


def make_subnets(name: str, pools: int) -> list[BundledSubnet]:
    """A random subnet for each of so many FLOPs targets of a config, with random weights and BN statistics."""
    algorithm, _ = build(name, **{"model.constraints": [dict(metric="flops", num_targets=pools)]})
    algorithm.eval()
    (constraint,) = algorithm.constraints
    sampler = build_conditional_sampler(algorithm.costs["flops"], constraint)
    generator = np.random.default_rng(0)
    subnets = []
    for rank, target in enumerate(constraint.targets):
        indices, _ = sampler.draw_many(target, 1, generator)
        subnet = algorithm.space.decode(indices[0])
        net, _ = static_subnet(algorithm.architecture, algorithm.mutator, subnet, "cpu", 1, None)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = round_bn_statistics(torch.randn(module.num_features) * 0.1)
                module.running_var = round_bn_statistics(torch.rand(module.num_features) + 0.5)
        resources = {metric: float(cost(indices)[0]) for metric, cost in algorithm.costs.items()}
        subnets.append(
            BundledSubnet(
                net=net,
                name=f"flops_{target}",
                metric="flops",
                target=target,
                resources=resources,
                accuracy=float(rank),
                channels={key: value for key, value in subnet.items() if key != "resolution"},
                resolution=net.resolution,
            )
        )
    return subnets


def measure(switches: int, rounds: int, pools: int) -> Iterator[Figure]:
    """Size, loading, switching and forward passes of bundles."""
    for label, name in (("mbv1", "pss_mbv1_flops"), ("mbv2", "pss_mbv2_flops")):
        subnets = make_subnets(name, pools)
        largest_bytes = 4 * max(subnet.net.num_parameters for subnet in subnets)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "bundle.safetensors")
            save_bundle(path, subnets, {})
            yield Figure(
                f"{label}_bundle_over_largest", path.stat().st_size / largest_bytes, "x",
                f"weights of the largest subnet, {largest_bytes / 1e6:.2f} MB; {pools} subnets", at_most=1.15,
            )  # fmt: skip
            start = time.perf_counter()
            model = AdaptiveModel.load(path)
            yield Figure(f"{label}_load", time.perf_counter() - start, "s")
            low, high = (pick(s.resources["flops"] for s in subnets) for pick in (min, max))
            times_us = []
            for budget in np.random.default_rng(0).uniform(low, high, switches):
                start = time.perf_counter()
                model.select(flops=float(budget), params=1000.0)
                times_us.append((time.perf_counter() - start) * 1e6)
            yield Figure(
                f"{label}_switch", statistics.median(times_us), "us", f"worst of {switches}: {max(times_us):.0f} us",
                at_most=200,
            )  # fmt: skip
            for subnet in (subnets[0], subnets[-1]):
                save_subnet(subnet.net, folder)
                static = load_subnet(folder)
                images = torch.randn(1, 3, subnet.resolution, subnet.resolution)
                model.use(subnet.name)
                with torch.inference_mode():
                    medians = time_in_turn(
                        {"bundle": partial(model, images), "static": partial(static, images)}, rounds
                    )
                    reference = static(images)
                    error = float((model(images) - reference).abs().max() / reference.abs().max())
                yield Figure(
                    f"{label}_{subnet.name}_forward", medians["bundle"] / medians["static"], "x",
                    f"static export, {medians['static'] * 1e3:.2f} ms; logits differ by {error:.0e}", at_most=1.05,
                )  # fmt: skip


if __name__ == "__main__":
    main(measure, "one file for many subnets", switches=2000, rounds=40, pools=47)
