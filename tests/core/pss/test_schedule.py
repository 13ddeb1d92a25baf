from itertools import pairwise

import pytest

from pss_razor.core import exponential_decay


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0, 1.0), (0.25, 0.31622776601683794), (0.5, 0.1), (0.75, 0.03162277660168379), (1, 0.01)],
)
def test_one_to_a_hundredth(progress, expected):
    assert exponential_decay(1.0, 0.01, progress) == pytest.approx(expected, rel=1e-12)


def test_other_ends_and_growth():
    assert exponential_decay(8, 2, 0.5) == pytest.approx(4)
    assert exponential_decay(2, 32, 0.25) == pytest.approx(4)
    assert exponential_decay(0.3, 0.3, 0.7) == pytest.approx(0.3)


def test_each_epoch_shrinks_by_the_same_factor():
    values = [exponential_decay(1.0, 0.01, epoch / 250) for epoch in range(251)]
    factors = [after / before for before, after in pairwise(values)]
    assert factors == pytest.approx([0.01 ** (1 / 250)] * 250, rel=1e-9)
    assert all(isinstance(value, float) for value in values)
