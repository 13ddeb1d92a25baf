"""The PSS-Net authors' MobileNetV1 without their program: its layout written down once more, in plain torch and Python.

Nothing of the project is used here: tests compare it with this.
"""

from __future__ import annotations

import itertools
import math
import random

import torch
from torch import Tensor
from torch.nn import functional as F

GROUPS = ("stem", *(f"block{block}" for block in range(1, 14)))
BASE_WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
RESOLUTIONS = range(128, 225, 8)
METRICS = ("flops", "latency_gpu", "latency_cpu")


def width_of(base: int, multiplier: float) -> int:
    """A multiple of 8, and at least 0.9 of what is wanted."""
    width = max(8, 8 * math.floor((base * multiplier + 4) / 8))
    return width + 8 if width < 0.9 * base * multiplier else width


def widths_of(multipliers: list[float]) -> tuple[int, ...]:
    return tuple(width_of(base, m) for base, m in zip(BASE_WIDTHS, multipliers, strict=True))


def choices_of(base: int) -> list[int]:
    """All widths that a multiplier from 0.75 to 1 gives."""
    return sorted({width_of(base, 0.75 + step / 40000) for step in range(10001)})


def text_of(multipliers: list[float], resolution: int, metric: str, value: float, target: float) -> str:
    """A subnet as a pool's key."""
    return str(
        {
            "model_name": "mobilenet_v1",
            "infer_metric_type": metric,
            "resolution": resolution,
            "stage_cout_mults": multipliers,
            "infer_metric": value,
            "infer_metric_target": target,
        }
    )


def make_state_dict(num_classes: int, seed: int = 0) -> dict[str, Tensor]:
    """Random weights by the authors' names. In every seventh channel or so BN's output is around 6, where ReLU6 clips.

    Only there, and with moderate factors: a network that amplifies would amplify rounding as well.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(shape, generator=generator) * std

    state: dict[str, Tensor] = {}

    def add_conv(feature: int, position: int, *shape: int) -> None:
        state[f"features.{feature}.{position}.weight"] = normal(*shape, std=math.prod(shape[1:]) ** -0.5)
        norm, cout = f"features.{feature}.{position + 1}", shape[0]
        state[f"{norm}.weight"] = 0.5 + torch.rand(cout, generator=generator)
        state[f"{norm}.bias"] = normal(cout, std=0.5) + 6 * (torch.rand(cout, generator=generator) < 0.15)
        state[f"{norm}.bn.running_mean"] = normal(cout, std=0.5)
        state[f"{norm}.bn.running_var"] = 0.5 + torch.rand(cout, generator=generator)
        state[f"{norm}.bn.num_batches_tracked"] = torch.tensor(312_500)

    add_conv(0, 0, BASE_WIDTHS[0], 3, 3, 3)
    for block, (cin, cout) in enumerate(itertools.pairwise(BASE_WIDTHS), start=1):
        add_conv(block, 0, cin, 1, 3, 3)
        add_conv(block, 3, cout, cin, 1, 1)
    state["classifier.0.weight"] = normal(num_classes, BASE_WIDTHS[-1], std=0.02)
    state["classifier.0.bias"] = normal(num_classes, std=0.05)
    return {f"module.{name}": tensor for name, tensor in state.items()}


def forward(
    state: dict[str, Tensor], images: Tensor, widths: tuple[int, ...], resolution: int, training: bool
) -> Tensor:
    """Logits of a subnet: the first channels of every tensor."""

    def conv_bn_relu6(x: Tensor, name: str, position: int, cout: int, stride: int, depthwise: bool) -> Tensor:
        weight = state[f"module.{name}.{position}.weight"][:cout, : 1 if depthwise else x.shape[1]]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=cout if depthwise else 1)
        norm = f"module.{name}.{position + 1}"
        mean, var = (None, None) if training else (state[f"{norm}.bn.running_{s}"][:cout] for s in ("mean", "var"))
        weight, bias = state[f"{norm}.weight"][:cout], state[f"{norm}.bias"][:cout]
        return F.relu6(F.batch_norm(x, mean, var, weight, bias, training, eps=1e-5))

    x = F.interpolate(images, (resolution, resolution), mode="bilinear", align_corners=True)
    x = conv_bn_relu6(x, "features.0", 0, widths[0], STRIDES[0], depthwise=False)
    for block in range(1, 14):
        x = conv_bn_relu6(x, f"features.{block}", 0, x.shape[1], STRIDES[block], depthwise=True)
        x = conv_bn_relu6(x, f"features.{block}", 3, widths[block], 1, depthwise=False)
    x = x.mean((2, 3))
    return F.linear(x, state["module.classifier.0.weight"][:, : x.shape[1]], state["module.classifier.0.bias"])


def mflops(widths: tuple[int, ...], resolution: int, num_classes: int = 1000) -> float:
    """Multiply-accumulates of convs, the final pooling and the linear layer, in millions."""
    side = math.ceil(resolution / 2)
    total = side**2 * 27 * widths[0]
    for cin, cout, stride in zip(widths, widths[1:], STRIDES[1:], strict=False):
        side = math.ceil(side / stride)
        total += side**2 * (9 * cin + cin * cout)
    return (total + side**2 * widths[-1] + widths[-1] * num_classes) / 1e6


# Latency tables: (block_type, in_size, cin, cout, cmid, kernel_size, stride, padding)


def blocks_of(widths: tuple[int, ...], resolution: int) -> list[tuple]:
    """The rows of a table that a subnet's latency is the sum of."""
    side = math.ceil(resolution / 2)
    blocks: list[tuple] = [("Conv2d", resolution, 3, widths[0], None, 3, 2, 1)]
    for cin, cout, stride in zip(widths, widths[1:], STRIDES[1:], strict=False):
        blocks.append(("MBV1Block", side, cin, cout, None, None, stride, None))
        side = math.ceil(side / stride)
    return [*blocks, ("Linear", 1, widths[-1], 1000, None, None, None, None)]


def all_blocks() -> list[tuple]:
    """Every block of the search space."""
    found: dict[tuple, None] = {}
    choices = [choices_of(base) for base in BASE_WIDTHS]
    for resolution in RESOLUTIONS:
        for position in range(len(BASE_WIDTHS)):
            before = choices[position - 1] if position else [3]
            for cin in before:
                for cout in choices[position]:
                    widths = list(BASE_WIDTHS)
                    widths[max(position - 1, 0)], widths[position] = cin if position else cout, cout
                    found[blocks_of(tuple(widths), resolution)[position]] = None
    for cin in choices[-1]:
        found["Linear", 1, cin, 1000, None, None, None, None] = None
    return list(found)


def latency_us(block: tuple, device: str) -> float:
    """A made-up latency, with which the whole space has about the paper's latencies."""
    kind, side, cin, cout, _, _, stride, _ = block
    out = math.ceil(side / (stride or 1)) ** 2
    macs = {"Conv2d": out * 27 * cout, "MBV1Block": out * (9 * cin + cin * cout), "Linear": cin * cout}[kind] / 1e6
    return 330 + 45.5 * macs if device == "cpu" else 2 + 0.37 * macs


def resource(metric: str, widths: tuple[int, ...], resolution: int, num_classes: int = 1000) -> float:
    if metric == "flops":
        return mflops(widths, resolution, num_classes)
    device = {"latency_cpu": "cpu", "latency_gpu": "cuda"}[metric]
    return sum(latency_us(block, device) for block in blocks_of(widths, resolution))


TARGETS = {"flops": (110, 570, 10), "latency_gpu": (70, 240, 10), "latency_cpu": (10000, 31000, 1000)}


def make_pools(metrics: tuple[str, ...], entries: int, num_classes: int, seed: int = 0) -> dict:
    """Pools as the authors' program saves them, of random subnets: ``{'max_size': 50, 'pools': {metric: …}}``."""
    generator = random.Random(seed)
    pools: dict[str, dict] = {}
    for metric in metrics:
        first, last, step = TARGETS[metric]
        pools[metric] = {target: {} for target in range(first, last + 1, step)}
        for _ in range(entries):
            low = generator.uniform(0.75, 1.0)
            multipliers = [round(generator.uniform(low, min(1.0, low + 0.1)), 3) for _ in BASE_WIDTHS]
            resolution = generator.choice(RESOLUTIONS)
            value = resource(metric, widths_of(multipliers), resolution, num_classes)
            target = round((value - first) / step) * step + first
            if first <= target <= last:
                text = text_of(multipliers, resolution, metric, value, target)
                pools[metric][target][text] = -generator.uniform(1, 3)
    return {"max_size": 50, "infer_metric_target_list": list(metrics), "pools": pools}


def make_checkpoint(metrics: tuple[str, ...] = ("flops",), num_classes: int = 10, entries: int = 60) -> dict:
    """The content of a checkpoint."""
    return dict(
        model=make_state_dict(num_classes),
        optimizer={},
        lr_scheduler={},
        last_epoch=249,
        arch_pools=make_pools(metrics, entries, num_classes),
    )
