"""Frequencies of drawn ops."""

import numpy as np
import pytest

from pss_razor.core import BoardEntry, ConfigError, Dimension, PathBoard, PathSampler, SearchSpace, Subnet

OPS = ("k3e4", "k3e6", "k5e4", "k5e6", "k7e4", "k7e6")
SPACE = SearchSpace([Dimension("stem", "op", ("k3e1",)), Dimension("a", "op", OPS), Dimension("b", "op", OPS)])
PROBABILITIES = (0.05, 0.2, 0.05, 0.5, 0.05, 0.15)


def board_of(*paths):
    board = PathBoard(10)
    for a, b in paths:
        board.add(BoardEntry(50.0, 1.0, Subnet({"stem": "k3e1", "a": a, "b": b}), None, None))
    return board


def frequencies(sampler, board, group, count=4000):
    drawn = SPACE.encode([sampler.draw(board) for _ in range(count)])
    return np.bincount(drawn[:, SPACE.position(group)], minlength=6) / count


@pytest.mark.parametrize("group", ["a", "b"])
@pytest.mark.parametrize(
    ("sampling", "paths", "expected"),
    [
        ("even", [("k7e6", "k7e6")], (1 / 6,) * 6),
        ("pre_prob", [("k7e6", "k7e6")], PROBABILITIES),
        ("teacher", [], (1 / 6,) * 6),
        # whichever block has them
        ("teacher", [("k3e4", "k3e4"), ("k3e4", "k7e6")], (0.75, 0, 0, 0, 0, 0.25)),
    ],
)
def test_frequencies(sampling, paths, expected, group):
    sampler = PathSampler(SPACE, sampling, PROBABILITIES)
    np.testing.assert_allclose(frequencies(sampler, board_of(*paths), group), expected, atol=0.03)


def test_blocks_are_independent():
    sampler = PathSampler(SPACE, "even")
    drawn = SPACE.encode([sampler.draw(board_of()) for _ in range(4000)])
    assert abs(np.corrcoef(drawn[:, 1], drawn[:, 2])[0, 1]) < 0.05


def test_equal_seeds_draw_equally():
    draws = [[PathSampler(SPACE, "even", seed=seed).draw(board_of()) for _ in range(1)] for seed in (1, 1)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("probabilities", [(), (0.5, 0.5), (0.3,) * 6, (-0.5, 0.5, 0.25, 0.25, 0.25, 0.25)])
def test_probabilities_that_do_not_fit(probabilities):
    with pytest.raises(ConfigError, match="6 ops"):
        PathSampler(SPACE, "pre_prob", probabilities)


def test_unknown_sampling():
    with pytest.raises(ConfigError, match="'evne' is not known"):
        PathSampler(SPACE, "evne")
