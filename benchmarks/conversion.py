"""What becomes of torchvision's and timm's networks when they are converted: ``python benchmarks/conversion.py``.

Every network is converted with ``width_range=(0.5, 1)``; of some subnets, FLOPs and parameters are compared with
``torch.utils.flop_counter`` and a count of the static network's, and logits of the static network with the supernet's.
Needs several GB for the largest networks, which are left out with ``--skip-larger M`` (million parameters).
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pss_razor.conversion import Supernet, convert
from pss_razor.core import ConfigError, Subnet
from pss_razor.core.cost_graph import CostGraph

# A small model of each of these families of timm, chosen by name.
TIMM = (
    "beit_base_patch16_224", "botnet26t_256", "cait_xxs24_224", "coat_tiny", "coatnet_nano_rw_224", "convit_tiny",
    "convmixer_768_32", "convnext_atto", "convnextv2_atto", "crossvit_tiny_240", "cspresnet50", "davit_tiny",
    "deit_tiny_patch16_224", "densenet121", "dla34", "dpn48b", "edgenext_xx_small", "efficientformer_l1",
    "efficientformerv2_s0", "efficientnet_b0", "efficientvit_b0", "eva02_tiny_patch14_224", "fastvit_t8", "fbnetc_100",
    "focalnet_tiny_srf", "gcresnet33ts", "gernet_s", "ghostnet_100", "hardcorenas_a", "hgnetv2_b0", "hrnet_w18_small",
    "inception_next_tiny", "inception_v4", "lcnet_050", "levit_128s", "maxvit_pico_rw_256", "mixer_s32_224",
    "mixnet_s", "mnasnet_100", "mobilenetv2_100", "mobilenetv3_small_100", "mobileone_s0", "mobilevit_xxs", "nest_tiny",
    "nf_regnet_b0", "pit_ti_224", "poolformer_s12", "pvt_v2_b0", "regnetx_002", "repvgg_a0", "res2net50_14w_8s",
    "resmlp_12_224", "resnest14d", "resnet18", "rexnet_100", "selecsls42b", "seresnet50", "spnasnet_100",
    "swin_tiny_patch4_window7_224", "tinynet_a",
)  # fmt: skip
BAR = 0.6


def networks(
    source: str, skip_smaller: float, skip_larger: float
) -> Iterator[tuple[str, Callable[[], nn.Module], int]]:
    """Name, builder and image size."""
    if source == "torchvision":
        import torchvision

        for name in torchvision.models.list_models(module=torchvision.models):
            builder = torchvision.models.get_model_builder(name)
            millions = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"] / 1e6
            if skip_smaller < millions <= skip_larger:
                yield name, (lambda build=builder: build(weights=None)), 299 if name == "inception_v3" else 224
    else:
        import timm

        for name in TIMM:
            if not timm.is_model(name):
                yield name, _unknown(name), 224
                continue
            size = timm.get_pretrained_cfg(name).input_size[-1]
            yield name, (lambda own=name: timm.create_model(own, pretrained=False)), size


def _unknown(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        raise ConfigError(f"timm has no {name}")

    return build


def build_network(build: Callable[[], nn.Module]) -> nn.Module:
    """A network in evaluation mode, always the same; a head of zeros would make all logits equal."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build().eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def examine(build: Callable[[], nn.Module], size: int, subnets: int, onnx_subnets: int = 0) -> dict[str, Any]:
    """Convert a network and compare; what is found."""
    try:
        model = build_network(build)
        images = torch.randn(2, 3, size, size)
        start = time.perf_counter()
        supernet = convert(model, images)
    except ConfigError as error:
        return {"error": str(error)}
    found: dict[str, Any] = {"seconds": time.perf_counter() - start}
    space = supernet.space
    low, high = supernet.costs["flops"](space.encode([space.smallest, space.largest]))
    found |= {"dimensions": len(space), "smallest": low / high, "searched": supernet.searched_share}
    generator = np.random.default_rng(0)
    rows = generator.integers(np.array(space.shape), size=(subnets, len(space)))
    found["cost_error"], found["logit_error"] = compare(supernet, rows, images)
    if onnx_subnets:
        found["onnx_error"] = max(onnx_error(supernet, space.decode(row), images) for row in rows[:onnx_subnets])
    found["not_searched"] = {reason: names for reason, names in supernet.reasons.items() if "images" not in reason}
    return found


def compare(supernet: Supernet, rows: np.ndarray, images: torch.Tensor) -> tuple[float, float]:
    """Largest relative error of FLOPs and parameters; of logits, of the largest, for three of the subnets."""
    supernet.eval()
    space = supernet.space
    pools = CostGraph(space, tuple(layer for layer in supernet.graph.layers if layer.kind == "pool"), ()).flops
    cost_error = logit_error = 0.0
    for number, row in enumerate(rows):
        subnet = space.decode(row)
        static = supernet.static(subnet).eval()
        if number < 3:
            with supernet.active(subnet), torch.no_grad():
                expected, logits = supernet(images), static(images)
            logit_error = max(logit_error, float((logits - expected).abs().max() / expected.abs().max()))
        params = sum(p.numel() for p in static.parameters()) * 1e-6
        meta = copy.deepcopy(static).to("meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            meta(torch.empty(1, *images.shape[1:], device="meta"))
        macs = counter.get_total_flops() // 2 * 1e-6
        own = supernet.costs["flops"](row[None])[0] - pools(row[None])[0]
        cost_error = max(cost_error, abs(own / macs - 1), abs(supernet.costs["params"](row[None])[0] / params - 1))
    return cost_error, logit_error


def onnx_error(supernet: Supernet, subnet: Subnet, images: torch.Tensor) -> float:
    """Largest difference of logits between the supernet and a subnet's ONNX file, of the largest logit."""
    import onnxruntime

    from pss_razor.export.onnx_export import INPUT_NAME, to_onnx

    session = onnxruntime.InferenceSession(to_onnx(supernet.static(subnet).eval(), images))
    logits = torch.from_numpy(session.run(None, {INPUT_NAME: images.numpy()})[0])
    with supernet.active(subnet), torch.no_grad():
        expected = supernet(images)
    return float((logits - expected).abs().max() / expected.abs().max())


def tabulate(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Lines of a table in Markdown."""
    yield "| network | dimensions | FLOPs searched | smallest / largest FLOPs | not searched, and why |"
    yield "| --- | --- | --- | --- | --- |"
    for name, found in results.items():
        if "error" in found:
            yield f"| {name} | - | - | - | {_shorten(found['error'])} |"
            continue
        reasons = {why: own for why, own in found["not_searched"].items() if why != "the network's outputs"}
        first = next((f"{own[0]}: {why}" for why, own in reasons.items()), "")
        more = sum(map(len, reasons.values())) - 1
        text = _shorten(first) + (f" and {more} more" if more > 0 else "")
        yield f"| {name} | {found['dimensions']} | {found['searched']:.0%} | {found['smallest']:.2f} | {text} |"


def _shorten(text: str) -> str:
    text = text.replace("|", "/")
    return text if len(text) <= 110 else f"{text[:110]}…"


def main() -> None:
    """Convert all, print a line each and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=["torchvision", "timm"], default="torchvision")
    parser.add_argument("--skip-larger", type=float, default=100.0, help="million parameters (default: 100)")
    parser.add_argument("--skip-smaller", type=float, default=0.0, help="million parameters (default: none)")
    parser.add_argument("--subnets", type=int, default=20, help="random subnets whose costs are compared (default: 20)")
    parser.add_argument("--onnx", type=int, default=0, help="of these, so many as ONNX files (default: none)")
    parser.add_argument("--out", type=Path, help="all that is found, .json")
    parser.add_argument("--markdown", type=Path, help="the same as a table, a row a network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    for name, build, size in networks(args.source, args.skip_smaller, args.skip_larger):
        found = results[name] = examine(build, size, args.subnets, args.onnx)
        if "error" in found:
            print(f"{name}: {found['error'][:160]}", flush=True)
        else:
            print(
                f"{name}: {found['dimensions']} dimensions, smallest {found['smallest']:.2f}, searched "
                f"{found['searched']:.0%}, {found['seconds']:.2f} s, costs {found['cost_error']:.0e}, logits "
                f"{found['logit_error']:.0e}" + (f", ONNX {found['onnx_error']:.0e}" if args.onnx else ""),
                flush=True,
            )
        if args.out is not None:
            args.out.write_text(json.dumps(results, indent=1))
        if args.markdown is not None:
            args.markdown.write_text("\n".join(tabulate(results)) + "\n")
    done = [found for found in results.values() if "error" not in found]
    good = [found for found in done if found["smallest"] <= BAR]
    print(f"converted_{args.source}: {len(done) / len(results):.1%} (of {len(results)})")
    print(f"smallest_at_most_{BAR}_{args.source}: {len(good) / len(results):.1%}")
    seconds = [found["seconds"] for found in done]
    print(f"conversion_seconds_{args.source}: {statistics.median(seconds):.2f} s (worst {max(seconds):.2f})")
    print(f"worst_cost_error_{args.source}: {max(found['cost_error'] for found in done):.1e}")
    if args.onnx:
        print(f"worst_onnx_error_{args.source}: {max(found['onnx_error'] for found in done):.1e}")
    print(f"worst_logit_error_{args.source}: {max(found['logit_error'] for found in done):.1e}")


if __name__ == "__main__":
    main()
