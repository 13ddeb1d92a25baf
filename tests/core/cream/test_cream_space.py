"""Costs of ops, the rule of depth and input size, released architectures: figures of the method's description."""

import numpy as np
import pytest

from pss_razor.core import ConfigError, check_arch, choose_depths, released_model
from pss_razor.core.cream.cream_space import op_costs

# Millions at 224; stages 1 to 5; for each of ops 0 to 5 the first block of the stage / a following block.
PUBLISHED_COSTS = """
21.829/18.821 32.669/28.160 25.040/23.638 37.486/35.386 29.857/30.863 44.712/46.224
11.809/11.867 17.686/17.781 13.013/13.874 19.493/20.791 14.819/16.885 22.202/25.307
8.198/10.996 12.293/16.517 8.700/12.000 13.045/18.022 9.452/13.505 14.174/20.280
12.006/15.616 18.029/23.461 13.010/16.821 19.534/25.267 14.515/18.627 21.792/27.977
11.307/15.292 17.007/23.150 11.609/15.895 17.459/24.054 12.060/16.798 18.136/25.408
"""


def test_costs_of_ops():
    lines = PUBLISHED_COSTS.strip().splitlines()
    published = np.array([[[float(v) for v in op.split("/")] for op in line.split()] for line in lines])
    # Published are sums of layers that were each rounded to three decimals.
    np.testing.assert_allclose(op_costs(), published.transpose(0, 2, 1), atol=1e-3, rtol=0)


def test_costs_of_one_block_a_stage():
    first = op_costs()[:, 0]
    assert first[:, 0].sum() == pytest.approx(65.1, abs=0.05)
    assert first[:, 5].sum() == pytest.approx(121.0, abs=0.05)


@pytest.mark.parametrize(
    ("most", "depths", "input_size"),
    [
        (600, (4, 4, 4, 4, 4), 224),
        (550, (3, 4, 4, 4, 4), 224),
        (481, (2, 4, 4, 4, 4), 224),
        (400, (2, 2, 4, 4, 3), 224),
        (300, (1, 2, 3, 3, 3), 224),
        (287, (1, 1, 3, 3, 3), 224),
        (200, (1, 1, 3, 2, 1), 224),
        (150, (1, 1, 2, 1, 1), 224),
        (114, (1, 1, 1, 1, 1), 224),
        (43, (1, 1, 1, 1, 1), 160),
        (14, (1, 1, 1, 1, 1), 96),
        (5, (1, 1, 1, 1, 1), 64),
    ],
)
def test_depths_and_input_size(most, depths, input_size):
    assert choose_depths((0, most)) == (depths, input_size)


def test_a_lower_input_costs_by_the_square():
    # At 96 the smallest path has 65.15 * (96 / 224) ** 2 = 11.97, at 64 it has 5.32.
    assert choose_depths((0, 12))[1] == 96
    assert choose_depths((0, 11.9))[1] == 64
    # ... and the minimum is of the same size: the largest path at 96 has 120.96 * (96 / 224) ** 2 = 22.2.
    assert choose_depths((11.9, 12))[1] == 96


@pytest.mark.parametrize("flops_range", [(600, 700), (122, 123)])
def test_an_interval_that_cannot_be_met(flops_range):
    with pytest.raises(ConfigError, match="cannot be met"):
        choose_depths(flops_range)


@pytest.mark.parametrize("flops_range", [(5,), (300, 200), (-1, 5), (7, 7), (1, 2, 3)])
def test_what_is_no_interval(flops_range):
    with pytest.raises(ConfigError, match="must be"):
        choose_depths(flops_range)


@pytest.mark.parametrize(
    ("name", "arch", "input_size"),
    [
        (14, [[0], [0], [3, 3], [3, 3], [1], [3], [0]], 64),
        (43, [[0], [0], [3, 1], [3, 1], [3, 3, 3], [3, 3], [0]], 96),
        (114, [[0], [0], [3, 3], [3, 3], [3, 3, 3], [3, 3], [0]], 160),
        (287, [[0], [0], [3, 3], [3, 1, 3], [3, 3, 3, 3], [3, 3, 3], [0]], 224),
    ],
)
def test_a_single_block_of_a_released_model_has_the_default_op(name, arch, input_size):
    assert released_model(name) == (arch, input_size)


def test_released_models():
    for name in (481, 604):
        arch, input_size = released_model(name)
        assert check_arch(arch) == arch and input_size == 224
    with pytest.raises(ConfigError, match=r"choose from.*14, 43, 114, 287, 481, 604"):
        released_model(100)


@pytest.mark.parametrize(
    ("arch", "problem"),
    [
        (5, "seven lists"),
        ("0123456", "seven lists"),
        ([[0], [3], [3], [3], [3], [3]], "seven lists"),
        ([[0], [3], [], [3], [3], [3], [0]], "not empty"),
        ([[1], [3], [3], [3], [3], [3], [0]], "begin and end"),
        ([[0], [3], [3], [3, 6], [3], [3], [0]], "stage 3 has the op 6"),
        ([[0], [3], [3], [3, "3"], [3], [3], [0]], "stage 3 has the op '3'"),
    ],
)
def test_check_arch(arch, problem):
    with pytest.raises(ConfigError, match=problem):
        check_arch(arch)
