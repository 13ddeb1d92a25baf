"""What NVIDIA ModelOpt makes of the networks of conversion.py: ``python benchmarks/conversion_modelopt.py``.

In an environment of its own: ``pip install nvidia-modelopt torch torchvision`` (and timm, for ``--source timm``), with
this package's base installation. ``mtn.convert(model, mode="autonas")`` with its default settings; then the largest
subnet is compared with the network, and the exported smallest one with the converted network.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import modelopt.torch.nas as mtn
import torch
from conversion import BAR, build_network, networks
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_flops(model: nn.Module, images: torch.Tensor) -> int:
    """Of one image."""
    model.requires_grad_(False)  # the counter looks for gradient functions of what requires one
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images[:1])
    return counter.get_total_flops()


def examine(build: Callable[[], nn.Module], size: int) -> dict[str, Any]:
    """Convert a network and compare; what is found."""
    model = build_network(build)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = model(images)
    start = time.perf_counter()
    try:
        converted = mtn.convert(copy.deepcopy(model), mode="autonas").eval()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            largest = (converted(images) - expected).abs().max() / expected.abs().max()
        mtn.sample(converted, sample_func=min)
        with torch.no_grad():
            logits = converted(images)
        static = mtn.export(converted)
        with torch.no_grad():
            smallest = (static(images) - logits).abs().max() / logits.abs().max()
    except Exception as error:  # of another package, of any kind: the table says which networks it does not do
        return {"error": f"{type(error).__name__}: {error}"}
    share = count_flops(static, images) / count_flops(model, images)
    return {"seconds": seconds, "smallest": share, "logit_error": max(float(largest), float(smallest))}


def main() -> None:
    """Convert all, print a line each and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=["torchvision", "timm"], default="torchvision")
    parser.add_argument("--skip-larger", type=float, default=100.0, help="million parameters (default: 100)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    for name, build, size in networks(args.source, 0.0, args.skip_larger):
        found = results[name] = examine(build, size)
        shown = found.get("error") or ", ".join(f"{key} {value:.2g}" for key, value in found.items())
        print(f"{name}: {shown[:160]}", flush=True)
    done = [found for found in results.values() if "error" not in found]
    good = [found for found in done if found["smallest"] <= BAR and found["logit_error"] <= 1e-4]
    seconds = [found["seconds"] for found in done]
    print(f"modelopt_converted_{args.source}: {len(done) / len(results):.1%} (of {len(results)})")
    print(f"modelopt_smallest_at_most_{BAR}_{args.source}: {len(good) / len(results):.1%}")
    print(f"modelopt_seconds_{args.source}: {statistics.median(seconds):.2f} s (worst {max(seconds):.2f})")
    print(f"modelopt_worst_logit_error_{args.source}: {max(found['logit_error'] for found in done):.1e}")


if __name__ == "__main__":
    main()
