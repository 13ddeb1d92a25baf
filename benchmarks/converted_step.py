"""One training step of converted networks: ``python benchmarks/converted_step.py``.

ResNet-50 and MobileNetV3 against static networks of the same three shapes, and MobileNetV2 against the hand-written
backbone with the same widths. A step as in :mod:`training_step`: three subnets, one optimizer step, channels_last.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from common import Figure, build, main, make_batch
from contenders import WARM_UP_ROUNDS, Contender, compare_contenders, time_contenders
from training_step import CLASSES, build_contender, random_subnet, static_step, supernet_step

from pss_razor.core import Dimension, SearchSpace, Subnet
from pss_razor.models import PSS

from mmengine.config import Config

# Blocks of each stage of MobileNetV2; torchvision's are features.1 to features.17.
_BLOCKS = (1, 2, 3, 4, 3, 3, 1)


def _sizes(side: int) -> dict[str, Any]:
    return {
        "model.architecture.resolutions": [side],
        "model.constraints": [dict(metric="flops", num_targets=2)],
    }


def convert(network: str, side: int, **options: Any) -> tuple[PSS, Config]:
    """The algorithm of a network of torchvision's, and its config."""
    architecture = dict(
        _delete_=True, type="ConvertedImageClassifier", network=dict(type=f"torchvision.{network}"), resolutions=[side]
    )
    return build(
        "pss_mbv2_flops",
        **{
            "model.architecture": architecture | options,
            "model.constraints": _sizes(side)["model.constraints"],
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


def same_subnets(hand: SearchSpace, converted: PSS, subnets: Sequence[Subnet]) -> None:
    """Let a converted MobileNetV2 have the hand-written one's smallest and largest subnet, and the given ones."""
    own = [widths_of_torchvision(subnet, converted.space) for subnet in (hand.smallest, *subnets, hand.largest)]
    converted.mutator.space = SearchSpace(
        [
            Dimension(dimension.name, dimension.kind, tuple(sorted({subnet[dimension.name] for subnet in own})))
            for dimension in converted.space.dimensions
        ]
    )
    assert [converted.space.smallest, converted.space.largest] == [own[0], own[-1]]


def build_converted(
    make: Callable[..., Callable[[Subnet], Callable[[], None]]], network: str, batch: int, side: int
) -> Callable[[int], Callable[[], None]]:
    """The rounds of a contender that is a network of torchvision's, with fresh subnets."""
    algorithm, config = convert(network, side)
    prepare = make(algorithm, config, make_batch(batch, side, CLASSES))
    return lambda number: prepare(random_subnet(algorithm.space, number))


def build_converted_mobilenet(batch: int, side: int, numbers: range) -> Callable[[int], Callable[[], None]]:
    """MobileNetV2 of torchvision's with the hand-written one's subnets, those of the rounds with these numbers."""
    hand = build("pss_mbv2_flops", **_sizes(side))[0].space
    converted, config = convert("mobilenet_v2", side, depth=False)
    same_subnets(hand, converted, [random_subnet(hand, number) for number in numbers])
    prepare = supernet_step(converted, config, make_batch(batch, side, CLASSES))
    return lambda number: prepare(widths_of_torchvision(random_subnet(hand, number), converted.space))


def measure(batch: int, side: int, rounds: int, threads: int) -> Iterator[Figure]:
    """Ratios to static networks and to the hand-written backbone."""
    where = f"fresh subnets, batch {batch}, {side}x{side}, {threads} threads"
    for network in ("resnet50", "mobilenet_v3_large"):
        ours, theirs = f"converted_{network}", "static"
        times = time_contenders(
            {
                ours: Contender(partial(build_converted, supernet_step, network, batch, side)),
                theirs: Contender(partial(build_converted, static_step, network, batch, side)),
            },
            rounds,
            threads,
        )
        yield compare_contenders(times, ours, theirs, "static networks of the same shapes", where, at_most=1.10)

    ours, theirs = "converted_mobilenet_v2", "hand_written"
    numbers = range(-WARM_UP_ROUNDS, rounds)
    times = time_contenders(
        {
            ours: Contender(partial(build_converted_mobilenet, batch, side, numbers)),
            theirs: Contender(partial(build_contender, supernet_step, "pss_mbv2_flops", batch, [side])),
        },
        rounds,
        threads,
    )
    yield compare_contenders(times, ours, theirs, "the hand-written backbone", where, at_most=1.03)


if __name__ == "__main__":
    main(measure, "one training step of converted networks", batch=32, side=64, rounds=11, threads=1)
