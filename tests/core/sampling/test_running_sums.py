"""Sums of sizes as variables."""

import numpy as np

from pss_razor.core.sampling.running_sums import RunningSums

STEM, OUT = np.array([16, 24, 32]), np.array([8, 16])


def test_values_are_the_sums():
    sums = RunningSums([3, 2, 2])
    variable, totals = sums.add([(2, OUT), (0, STEM), (1, OUT)])
    assert variable == 4 and totals.tolist() == [32, 40, 48, 56, 64]
    assert sums.sizes == [3, 2, 2, 4, 5]
    assert sums.derived[3].inputs == (0, 1) and sums.derived[4].inputs == (3, 2)
    for stem in range(3):
        for first in range(2):
            for second in range(2):
                total = sums.derived[4].values[sums.derived[3].values[stem, first], second]
                assert totals[total] == STEM[stem] + OUT[first] + OUT[second]


def test_concatenations_that_begin_alike_share_their_sums():
    sums = RunningSums([3, 2, 2, 2])
    first = sums.add([(0, STEM), (1, OUT)])[0]
    longer = sums.add([(0, STEM), (1, OUT), (2, OUT)])[0]
    assert sums.derived[longer].inputs == (first, 2)
    assert sums.add([(0, STEM), (1, OUT), (2, OUT)])[0] == longer
    other = sums.add([(0, STEM), (1, 2 * OUT)])[0]
    assert other not in (first, longer) and len(sums.derived) == 3


def test_one_variable_is_its_own_sum():
    sums = RunningSums([3, 2])
    variable, totals = sums.add([(1, OUT), (1, 2 * OUT)])
    assert variable == 1 and totals.tolist() == [24, 48] and not sums.derived
