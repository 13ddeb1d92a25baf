"""The board's rule of entering, its order, its state."""

import json

import pytest

from pss_razor.core import BoardEntry, CheckpointError, ConfigError, Dimension, PathBoard, SearchSpace, Subnet

SPACE = SearchSpace([Dimension("a", "op", ("k3", "k5")), Dimension("b", "op", ("k3", "k5", "k7"))])


def entry(accuracy, flops=10.0, a="k3", b="k3", images=()):
    return BoardEntry(accuracy, flops, Subnet({"a": a, "b": b}), list(images), [])


def board_of(*entries, capacity=3):
    board = PathBoard(capacity)
    for each in entries:
        board.add(each)
    return board


def test_best_first_and_equals_in_the_order_they_came():
    board = board_of(entry(20, a="k5"), entry(30), entry(20, a="k3"))
    assert [(e.accuracy, e.path["a"]) for e in board] == [(30, "k3"), (20, "k5"), (20, "k3")]


@pytest.mark.parametrize(
    ("accuracy", "flops", "enters"),
    [
        (25.01, 99, True),  # more than five points better
        (25.0, 99, False),  # exactly five
        (20.1, 9.9, True),  # better, with fewer FLOPs
        (20.1, 10.0, False),
        (20.0, 9.9, False),  # not better
        (10.0, 1.0, False),
    ],
)
def test_entering_a_full_board(accuracy, flops, enters):
    board = board_of(entry(40, flops=1), entry(30, flops=1), entry(20, flops=10))
    assert board.accepts(accuracy, flops) == enters
    if enters:
        board.add(entry(accuracy, flops))
        assert [e.accuracy for e in board] == [40, 30, accuracy]
    else:
        with pytest.raises(AssertionError):
            board.add(entry(accuracy, flops))


def test_anything_enters_a_board_with_room():
    assert board_of(entry(90, flops=1)).accepts(0.0, 1e9)


def test_best_within():
    board = board_of(entry(40, flops=300), entry(30, flops=200), entry(20, flops=100))
    assert board.best_within((0, 1000)).accuracy == 40
    assert board.best_within((0, 250)).accuracy == 30
    assert board.best_within((0, 50)).accuracy == 20  # the nearest
    assert board.best_within((210, 240)).accuracy == 30
    assert board.best_within((400, 500)).accuracy == 40


def test_state():
    board = board_of(entry(40, b="k7", images=[1, 2]), entry(30, flops=5.5))
    state = json.loads(json.dumps(board.state_dict(SPACE)))
    again = PathBoard(3)
    again.load_state_dict(SPACE, state)
    assert list(again) == list(board)
    smaller = PathBoard(1)
    smaller.load_state_dict(SPACE, state)
    assert list(smaller) == [board[0]]


@pytest.mark.parametrize("change", [{"ops": {"a": "k3", "b": "k9"}}, {"ops": {"a": "k3"}}, {"accuracy": None}])
def test_state_of_another_space(change):
    state = board_of(entry(40)).state_dict(SPACE)
    with pytest.raises(CheckpointError, match="not of this search space"):
        PathBoard(3).load_state_dict(SPACE, [{**state[0], **change}])
    del state[0]["images"]
    with pytest.raises(CheckpointError, match="images"):
        PathBoard(3).load_state_dict(SPACE, state)


def test_a_board_without_room():
    with pytest.raises(ConfigError, match="pool_size = 0"):
        PathBoard(0)
