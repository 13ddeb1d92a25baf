"""MobileNetV2's search space and its MACs written down by hand, independent of the package's models and estimators."""

import json
from pathlib import Path

import numpy as np
import pytest

from pss_razor.core import AdditiveCost, CostTerm, Dimension, SearchSpace, width_choices

NAMES = ("stem", "stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "stage7")
BASE_WIDTHS = (32, 16, 24, 32, 64, 96, 160, 320)
RESOLUTIONS = tuple(range(128, 225, 8))
# expansion, blocks, stride of the first block; stage by stage
STAGES = ((1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1))
LAST_WIDTH = 1280
CLASSES = 1000


def reference_subnets() -> list[dict]:
    """The 402 subnets measured with the authors' program; skips the test where the folder is absent."""
    path = Path(__file__).resolve().parents[1].parent / "shared" / "reference" / "mbv2_subnet_costs.json"
    if not path.is_file():
        pytest.skip(f"no reference figures at {path}")
    return json.loads(path.read_text())["subnets"]


def mbv2_space() -> SearchSpace:
    dimensions = []
    for name, base in zip(NAMES, BASE_WIDTHS, strict=True):
        choices = width_choices(base, 0.75, 1.0)
        dimensions.append(Dimension(name, "channels", tuple(choices), tuple(choices.values())))
    return SearchSpace([*dimensions, Dimension("resolution", "resolution", RESOLUTIONS)])


def half(size: int) -> int:
    return (size + 1) // 2


def stage_sizes(resolution: int) -> list[int]:
    """Side of the feature map before each stage, and after the last."""
    sizes = [half(resolution)]
    for _, _, stride in STAGES:
        sizes.append(half(sizes[-1]) if stride == 2 else sizes[-1])
    return sizes


def stem_macs(width: int, resolution: int) -> int:
    return 3 * 3 * 3 * width * half(resolution) ** 2


def stage_macs(stage: int, cin: int, cout: int, resolution: int) -> int:
    """MACs of the inverted residual blocks of a stage."""
    expansion, blocks, _ = STAGES[stage]
    size_in, size_out = stage_sizes(resolution)[stage : stage + 2]
    total = 0
    for _ in range(blocks):
        hidden = expansion * cin
        if expansion > 1:
            total += cin * hidden * size_in**2
        total += 9 * hidden * size_out**2
        total += hidden * cout * size_out**2
        cin, size_in = cout, size_out
    return total


def head_macs(cin: int, resolution: int) -> int:
    """Last 1x1 conv, average pooling (its input elements) and linear layer."""
    area = stage_sizes(resolution)[-1] ** 2
    return cin * LAST_WIDTH * area + LAST_WIDTH * area + LAST_WIDTH * CLASSES


def mbv2_macs(widths: tuple[int, ...], resolution: int) -> int:
    """MACs of one subnet: the widths of stem and the seven stages."""
    total = stem_macs(widths[0], resolution) + head_macs(widths[-1], resolution)
    for stage in range(len(STAGES)):
        total += stage_macs(stage, widths[stage], widths[stage + 1], resolution)
    return total


def mbv2_cost(space: SearchSpace) -> AdditiveCost:
    """The same in 1e6 MACs, as a sum of tables over (input width, output width, resolution)."""
    values = {dimension.name: dimension.values for dimension in space.dimensions}
    stem = np.array([[stem_macs(w, r) for r in RESOLUTIONS] for w in values["stem"]])
    head = np.array([[head_macs(w, r) for r in RESOLUTIONS] for w in values["stage7"]])
    terms = [CostTerm(("stem", "resolution"), stem), CostTerm(("stage7", "resolution"), head)]
    for stage in range(len(STAGES)):
        before, after = NAMES[stage], NAMES[stage + 1]
        table = np.array(
            [[[stage_macs(stage, i, o, r) for r in RESOLUTIONS] for o in values[after]] for i in values[before]]
        )
        terms.append(CostTerm((before, after, "resolution"), table))
    return AdditiveCost(space, terms, scale=1e-6)
