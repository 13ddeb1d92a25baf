"""The search space of Cream: its ops, the depth and input size that fit an interval of FLOPs, the released models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from pss_razor.core.errors import ConfigError
from pss_razor.core.space.width import make_divisible

# An op is a kernel size and an expansion ratio; an architecture names ops by their index here.
KERNELS_AND_EXPANSIONS = ((3, 4), (3, 6), (5, 4), (5, 6), (7, 4), (7, 6))
CREAM_OPS = tuple(f"k{kernel}e{expansion}" for kernel, expansion in KERNELS_AND_EXPANSIONS)
STEM_CHANNELS = 16
# Channels, and stride of the first block.
CREAM_STAGES = ((24, 2), (40, 2), (80, 2), (96, 1), (192, 2))

_FULL_SIZE, _SMALLEST_SIZE, _SIZE_STEP = 224, 64, 32
_STAGES_TO_DEEPEN = (2, 3, 4, 1, 0)
_FIRST_LIMITS, _LAST_LIMITS = (2, 2, 3, 3, 3), (4, 4, 4, 4, 4)


class CreamModel(NamedTuple):
    """A released model.

    Attributes:
        arch: Indices of ops, ``[[0], stage 1, …, stage 5, [0]]``.
        input_size: Side of its images in pixels.
    """

    arch: list[list[int]]
    input_size: int


def block_cost(in_channels: int, out_channels: int, kernel: int, expansion: int, stride: int, in_size: int) -> int:
    """What an inverted residual block with squeeze and excitation costs, as the names of Cream's models count it.

    Multiply-accumulates of the convs with their biases, twice the elements that BN normalises, and the elements that
    the squeeze averages.
    """
    hidden = in_channels * expansion
    squeezed = make_divisible(hidden // 4)
    in_area, out_area = in_size**2, (in_size // stride) ** 2
    expand = hidden * in_area * (in_channels + 2)
    depthwise = hidden * out_area * (kernel**2 + 2)
    excite = hidden * out_area + squeezed * (hidden + 1) + hidden * (squeezed + 1)
    project = out_channels * out_area * (hidden + 2)
    return expand + depthwise + excite + project


@cache
def op_costs() -> np.ndarray:
    """Cost of every op at 224 × 224 pixels in millions, float64 (stages, 2, ops): first block, any following block."""
    costs = []
    in_channels, in_size = STEM_CHANNELS, _FULL_SIZE // 2
    for channels, stride in CREAM_STAGES:
        out_size = in_size // stride
        first = [block_cost(in_channels, channels, *op, stride, in_size) for op in KERNELS_AND_EXPANSIONS]
        following = [block_cost(channels, channels, *op, 1, out_size) for op in KERNELS_AND_EXPANSIONS]
        costs.append([first, following])
        in_channels, in_size = channels, out_size
    return np.array(costs) * 1e-6


def choose_depths(flops_range: Sequence[float]) -> tuple[tuple[int, ...], int]:
    """Blocks of each stage and input size of the supernet whose paths fit an interval of FLOPs (Cream, appendix).

    Each stage begins with one block. While even the smallest ops cost too much, the input shrinks by 32 pixels, down
    to 64; costs shrink with its area. Then blocks are added as long as the largest path fits.

    Args:
        flops_range: Least and most cost of the searched blocks, in millions, as :func:`block_cost` counts.

    Returns:
        Blocks of stages 1 to 5, and the side of the images in pixels.

    Raises:
        ConfigError: It is no interval, or the largest path that fits under its maximum is below its minimum.
    """
    if len(flops_range) != 2 or not 0 <= flops_range[0] < flops_range[1]:
        raise ConfigError(f"flops_range = {flops_range} must be (least, most) in millions, such as (0, 287)")
    first, following = op_costs()[:, 0], op_costs()[:, 1]
    smallest = first.min(axis=1).sum()

    def at_full_size(flops: float) -> float:
        """What ``flops`` at the input size would be at 224."""
        return flops * (_FULL_SIZE / input_size) ** 2

    input_size = _FULL_SIZE
    while smallest > at_full_size(flops_range[1]) and input_size > _SMALLEST_SIZE:
        input_size -= _SIZE_STEP
    least, most = map(at_full_size, flops_range)

    depths = [1] * len(CREAM_STAGES)
    largest = first.max(axis=1).sum()
    for limits in (_FIRST_LIMITS, _LAST_LIMITS):
        for stage in _STAGES_TO_DEEPEN:
            block = following[stage].max()
            while depths[stage] < limits[stage] and largest + block <= most:
                depths[stage] += 1
                largest += block
    if largest < least:
        raise ConfigError(
            f"flops_range = {tuple(flops_range)} cannot be met: the largest path of the supernet that fits, "
            f"{depths} blocks at {input_size} pixels, has {largest * (input_size / _FULL_SIZE) ** 2:.4g}; lower the "
            "minimum or raise the maximum"
        )
    return tuple(depths), input_size


def check_arch(arch: Any) -> list[list[int]]:
    """Check an architecture: ``[[0], stage 1, …, stage 5, [0]]``, the index of an op for each block.

    Raises:
        ConfigError: It has another form, or an op that does not exist.
    """
    example = "[[0], [3], [3, 3], [3, 3], [3], [3], [0]]"
    nested = isinstance(arch, Sequence) and all(isinstance(stage, Sequence) and stage for stage in arch)
    if not nested or isinstance(arch, str) or len(arch) != len(CREAM_STAGES) + 2:
        raise ConfigError(f"arch = {arch!r} must be a list of seven lists that are not empty, such as {example}")
    stages = [list(stage) for stage in arch]
    if stages[0] != [0] or stages[-1] != [0]:
        raise ConfigError(f"arch = {arch!r} must begin and end with [0]: stem and head have one op, as in {example}")
    for index, stage in enumerate(stages):
        wrong = [op for op in stage if op not in range(len(CREAM_OPS)) or isinstance(op, bool)]
        if wrong:
            ops = ", ".join(f"{i} = {op}" for i, op in enumerate(CREAM_OPS))
            raise ConfigError(f"arch: stage {index} has the op {wrong[0]!r}; choose from {ops}")
    return stages


def released_model(model_selection: int) -> CreamModel:
    """The architecture of a model that Cream's authors released, by the name that says its FLOPs in millions.

    In these models, a stage of a single block ignores its published index and has the stage's default op. The result
    has the ops that run.

    Raises:
        ConfigError: There is no model of that name.
    """
    if model_selection not in _RELEASED:
        raise ConfigError(f"model_selection = {model_selection!r} is not released; choose from {sorted(_RELEASED)}")
    published, input_size = _RELEASED[model_selection]
    stages = [
        [default] if len(stage) == 1 else stage for stage, default in zip(published, _SINGLE_BLOCK_OPS, strict=True)
    ]
    return CreamModel([[0], *stages, [0]], input_size)


# k3e4, k5e4, k3e6, k3e6, k5e6
_SINGLE_BLOCK_OPS = (0, 2, 1, 1, 3)
_RELEASED: dict[int, tuple[list[list[int]], int]] = {
    14: ([[3], [3, 3], [3, 3], [3], [3]], 64),
    43: ([[3], [3, 1], [3, 1], [3, 3, 3], [3, 3]], 96),
    114: ([[3], [3, 3], [3, 3], [3, 3, 3], [3, 3]], 160),
    287: ([[3], [3, 3], [3, 1, 3], [3, 3, 3, 3], [3, 3, 3]], 224),
    481: ([[3, 4, 3, 1], [3, 2, 3, 0], [3, 3, 3, 1, 1], [3, 3, 3, 3], [3, 3, 3, 3]], 224),
    604: ([[3, 3, 2, 3, 3], [3, 2, 3, 2, 3], [3, 2, 3, 2, 3], [3, 3, 2, 2, 3, 3], [3, 3, 2, 3, 3, 3]], 224),
}
