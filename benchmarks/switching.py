"""Switching the active subnet, against MMRazor's ``set_choices``: ``python benchmarks/switching.py``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from autoslim import build_algorithm, choices_of, set_candidates
from common import Figure, build, main, time_in_turn


def measure(switches: int, rounds: int) -> Iterator[Figure]:
    """Time both mutators on the same random subnets."""
    algorithm, config = build("pss_mbv2_flops")
    space = algorithm.space
    generator = np.random.default_rng(0)
    subnets = [space.decode(row) for row in generator.integers(space.shape, size=(switches, len(space)))]
    autoslim = build_algorithm(config, 224)
    choices = [choices_of(autoslim, algorithm, subnet) for subnet in subnets]
    set_candidates(autoslim, choices)

    def ours() -> None:
        for subnet in subnets:
            algorithm.mutator.activate(subnet)

    def theirs() -> None:
        for choice in choices:
            autoslim.mutator.set_choices(choice)

    medians = time_in_turn({"ours": ours, "theirs": theirs}, rounds)
    yield Figure(
        "switch", medians["ours"] / switches * 1e6, "us", f"MMRazor {medians['theirs'] / switches * 1e6:.0f} us"
    )
    yield Figure(
        "mmrazor_switch_over_switch", medians["theirs"] / medians["ours"], "x",
        f"this project; MobileNetV2, the same {switches} random subnets", at_least=20,
    )  # fmt: skip


if __name__ == "__main__":
    main(measure, "switching the active subnet", switches=500, rounds=7)
