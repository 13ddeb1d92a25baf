from fractions import Fraction

import numpy as np
import pytest
from mbv2_by_hand import BASE_WIDTHS
from scipy.stats import chisquare

from pss_razor.core import make_divisible, width_choices


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (1280 * 0.888, 1136),
        (1280 * 0.75, 960),
        (1280, 1280),
        (320 * 0.75, 240),
        (16 * 0.75, 16),  # halfway between 8 and 16: up
        (24 * 0.75, 24),  # 16 is nearer, but less than 0.9 * 18
        (32 * 0.75, 24),
        (26.6, 24),
        (26.7, 32),  # 24 < 0.9 * 26.7 = 24.03
        (43.9, 40),
        (44, 48),
        (1, 8),  # never below the divisor
        (8.8, 8),
        (9, 16),  # 8 < 8.1
        (19.9, 24),  # 16 < 17.91
    ],
)
def test_make_divisible_hand_made_values(width, expected):
    assert make_divisible(width) == expected
    assert isinstance(make_divisible(width), int)


@pytest.mark.parametrize(("width", "divisor", "expected"), [(9.9, 4, 12), (11, 4, 12), (13.3, 4, 12), (37, 1, 37)])
def test_make_divisible_other_divisors(width, divisor, expected):
    assert make_divisible(width, divisor) == expected


@pytest.mark.parametrize("divisor", [4, 8, 16])
def test_make_divisible_is_the_nearest_multiple_that_keeps_nine_tenths(divisor):
    multiples = range(divisor, 420, divisor)
    for sixteenths in range(1, 16 * 384):
        width = Fraction(sixteenths, 16)
        nearest = min(multiples, key=lambda multiple: (abs(multiple - width), -multiple))
        expected = nearest if 10 * nearest >= 9 * width else nearest + divisor
        assert make_divisible(float(width), divisor) == expected, float(width)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (16, {16: 1}),
        (24, {24: 1}),
        (32, {24: Fraction(1, 3), 32: Fraction(2, 3)}),  # 24 up to 24 / 0.9 = 26.67, of 24 to 32
        (64, {48: Fraction(1, 4), 56: Fraction(1, 2), 64: Fraction(1, 4)}),  # 52 and 60, of 48 to 64
        (320, {240: 0.05, **dict.fromkeys(range(248, 320, 8), 0.1), 320: 0.05}),
    ],
)
def test_width_choices_by_hand(base, expected):
    choices = width_choices(base, 0.75, 1.0)
    assert list(choices) == sorted(expected)
    assert choices == pytest.approx({width: float(p) for width, p in expected.items()}, abs=1e-12)


INTERVALS = [
    *((base, 0.75, 1.0, 8) for base in sorted({*BASE_WIDTHS, 128, 256, 512, 1024})),
    (40, 0.2, 1.25, 8),  # several jumps of the 0.9 rule, and widths below the divisor
    (100, 0.33, 0.77, 4),
    (64, 0.9, 0.95, 8),  # within one step
]


@pytest.mark.parametrize(("base", "low", "high", "divisor"), INTERVALS)
def test_width_choices_against_a_fine_grid(base, low, high, divisor):
    cells = 40_000
    multipliers = low + (np.arange(cells) + 0.5) * (high - low) / cells
    widths, counts = np.unique([make_divisible(base * m, divisor) for m in multipliers], return_counts=True)
    choices = width_choices(base, low, high, divisor)
    assert list(choices) == widths.tolist()
    # an interval of multipliers misses or gains at most one cell at each of its two ends; a width has at most two
    assert np.array(list(choices.values())) == pytest.approx(counts / cells, abs=4 / cells)
    assert sum(choices.values()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("base", "low", "high", "divisor"), INTERVALS[-6:])
def test_width_choices_against_monte_carlo(base, low, high, divisor):
    draws = 40_000
    multipliers = np.random.default_rng(base).uniform(low, high, draws)
    widths, counts = np.unique([make_divisible(base * m, divisor) for m in multipliers], return_counts=True)
    choices = width_choices(base, low, high, divisor)
    assert list(choices) == widths.tolist()
    if len(choices) > 1:
        assert chisquare(counts, np.array(list(choices.values())) * draws).pvalue > 1e-4


def test_width_choices_of_a_single_multiplier():
    assert width_choices(64, 0.75, 0.75) == {48: 1.0}
    assert width_choices(1280, 0.888, 0.888) == {1136: 1.0}


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.75), (0.0, 1.0), (-0.5, 1.0)])
def test_width_choices_refuses_an_impossible_interval(low, high):
    with pytest.raises(ValueError, match="width multipliers"):
        width_choices(32, low, high)


def test_width_choices_has_no_width_of_probability_zero():
    # 200 * 1.1 = 220 is exactly where 224 would begin, but 220.00000000000003 in floating point
    assert max(width_choices(200, 0.75, 1.1)) == 216
