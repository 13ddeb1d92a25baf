"""One training step of converted networks: ``python benchmarks/converted_step.py``.

ResNet-50 and MobileNetV3 against static networks of the same three shapes, and MobileNetV2 against the hand-written
backbone with the same widths. A step as in :mod:`training_step`: three subnets, one optimizer step, channels_last.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from common import Figure, build, main, make_batch, time_in_turn
from training_step import CLASSES, middle_subnet, static_step, supernet_step

from pss_razor.core import Dimension, SearchSpace, Subnet
from pss_razor.models import PSS

from mmengine.config import Config

# Blocks of each stage of MobileNetV2; torchvision's are features.1 to features.17.
_BLOCKS = (1, 2, 3, 4, 3, 3, 1)


def convert(network: str, side: int, **options: Any) -> tuple[PSS, Config]:
    """The algorithm of a network of torchvision's, and its config."""
    architecture = dict(
        _delete_=True, type="ConvertedImageClassifier", network=dict(type=f"torchvision.{network}"), resolutions=[side]
    )
    return build(
        "pss_mbv2_flops",
        **{
            "model.architecture": architecture | options,
            "model.constraints": [dict(metric="flops", num_targets=10)],
        },
    )


def widths_of_torchvision(subnet: Mapping[str, Any], space: SearchSpace) -> Subnet:
    """A subnet of the hand-written MobileNetV2 as one of torchvision's, converted without depth.

    Args:
        subnet: Widths of the stem and the seven stages, and the resolution.
        space: The converted one's, whose groups are named after the conv that makes their channels.
    """
    found = {"features.0.0": subnet["stem"]}
    width = subnet["stem"]
    numbers = itertools.count(1)
    for stage, count in enumerate(_BLOCKS, start=1):
        for block in itertools.islice(numbers, count):
            found[f"features.{block}.conv.0.0"] = 6 * width
            # The first projection of a stage makes its channels; those after it are added to them.
            found[f"features.{block}.conv.{2 if block > 1 else 1}"] = width = subnet[f"stage{stage}"]
    found["resolution"] = subnet["resolution"]
    return Subnet({**space.largest, **{name: value for name, value in found.items() if name in space.names}})


def same_subnets(hand: PSS, converted: PSS) -> None:
    """Let the largest, the middle and the smallest subnet of a converted MobileNetV2 be those of the hand-written."""
    own = [hand.space.smallest, middle_subnet(hand), hand.space.largest]
    subnets = [widths_of_torchvision(subnet, converted.space) for subnet in own]
    converted.mutator.space = SearchSpace(
        [
            Dimension(dimension.name, dimension.kind, tuple(sorted({subnet[dimension.name] for subnet in subnets})))
            for dimension in converted.space.dimensions
        ]
    )
    ends = [converted.space.smallest, converted.space.largest]
    assert ends == [subnets[0], subnets[2]]


def measure(batch: int, side: int, rounds: int, threads: int) -> Iterator[Figure]:
    """Ratios to static networks and to the hand-written backbone."""
    torch.set_num_threads(threads)
    images = make_batch(batch, side, CLASSES)
    where = f"batch {batch}, {side}x{side}, {threads} threads"

    def ratio(name: str, steps: Mapping[str, Callable[[], None]], what: str, at_most: float) -> Figure:
        medians = time_in_turn(steps, rounds)
        ours, theirs = medians.values()
        return Figure(name, ours / theirs, "x", f"{what} {theirs * 1e3:.0f} ms, {where}", at_most=at_most)

    for network in ("resnet50", "mobilenet_v3_large"):
        algorithm, config = convert(network, side)
        subnet = middle_subnet(algorithm)
        steps = {
            "supernet": supernet_step(algorithm, config, images, subnet),
            "static": static_step(algorithm, config, images, subnet),
        }
        yield ratio(f"converted_{network}_over_static", steps, "static networks of the same shapes", 1.10)

    hand, hand_config = build("pss_mbv2_flops", **{
        "model.architecture.resolutions": [side], "model.constraints": [dict(metric="flops", num_targets=10)],
    })  # fmt: skip
    converted, config = convert("mobilenet_v2", side, depth=False)
    middle = middle_subnet(hand)
    own_middle = widths_of_torchvision(middle, converted.space)
    same_subnets(hand, converted)
    steps = {
        "converted": supernet_step(converted, config, images, own_middle),
        "hand-written": supernet_step(hand, hand_config, images, middle),
    }
    yield ratio("converted_mobilenet_v2_over_hand_written", steps, "the hand-written backbone", 1.03)


if __name__ == "__main__":
    main(measure, "one training step of converted networks", batch=32, side=64, rounds=9, threads=1)
