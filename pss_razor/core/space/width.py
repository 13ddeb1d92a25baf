"""Channel widths: the rounding rule and the widths that a multiplier interval can give, with their probabilities."""

from __future__ import annotations

import itertools
import math


def make_divisible(width: float, divisor: int = 8) -> int:
    """Round ``width`` to a multiple of ``divisor``, losing at most a tenth of it (MobileNetV2 and PSS-Net's rule).

    Args:
        width: Wanted number of channels.
        divisor: The multiple, also the least result.

    Returns:
        Number of channels.
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * width else rounded + divisor


def width_choices(base_width: int, low: float = 0.75, high: float = 1.0, divisor: int = 8) -> dict[int, float]:
    """The widths ``make_divisible(base_width * m)`` for ``m`` uniform in [low, high], with their exact probabilities.

    The rounding rule is constant between its breakpoints, so the probability of a width is the total length of the
    intervals of ``m`` that give it.

    Args:
        base_width: Channels of the full network; must itself be a multiple of ``divisor`` if ``high`` is 1.
        low: Smallest width multiplier, > 0.
        high: Largest width multiplier, >= low.
        divisor: The multiple that widths are rounded to.

    Returns:
        Width in channels -> probability, in increasing order of width.

    Raises:
        ValueError: The interval is empty or not positive.
    """
    if not 0 < low <= high:
        raise ValueError(f"width multipliers [{low}, {high}] must satisfy 0 < low <= high")
    start, end = base_width * low, base_width * high
    if start == end:
        return {make_divisible(start, divisor): 1.0}
    multiples = range(divisor, math.ceil(end) + 2 * divisor, divisor)
    margin = 1e-9 * base_width  # low and high are rounded floats: that must not add a width of probability 1e-16
    breakpoints = {start, end}
    for multiple in multiples:  # the rounding jumps halfway between multiples, the 0.9 rule at multiple / 0.9
        breakpoints.update(b for b in (multiple - divisor / 2, multiple / 0.9) if start + margin < b < end - margin)
    edges = sorted(breakpoints)
    probabilities: dict[int, float] = {}
    for left, right in itertools.pairwise(edges):
        width = make_divisible((left + right) / 2, divisor)
        probabilities[width] = probabilities.get(width, 0.0) + (right - left) / (end - start)
    return dict(sorted(probabilities.items()))
