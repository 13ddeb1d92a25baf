from __future__ import annotations

import struct

import pytest

from pss_razor.core import EvaluatedSubnet, Subnet
from pss_razor.visualization import draw_accuracy_against_resource


def record(name, metric, target, flops, accuracy):
    return EvaluatedSubnet(
        subnet=Subnet({}),
        name=name,
        metric=metric,
        target=target,
        resources={"flops": flops, "params": 1.0},
        metrics={"accuracy/top1": accuracy, "accuracy/top5": 99.0},
    )


LARGEST = record("largest", None, None, 300.0, 73.0)
SMALLEST = record("smallest", None, None, 70.0, 60.0)
POOLS = [record(f"flops_{t}", "flops", t, t + d, 60 + t / 50 + d) for t in (100, 150, 200) for d in (0, 2)]
BEST = POOLS[1::2]  # as the caller chose them, whatever their accuracy


def best_of(records):
    return [r for r in records if r in BEST]


def size_of(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.rstrip().endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize(
    "records",
    [
        [LARGEST, SMALLEST, *POOLS],
        [LARGEST, SMALLEST, POOLS[0]],  # one point
        [LARGEST, SMALLEST],  # all pools empty
        POOLS[:1],
        [LARGEST, SMALLEST, record("params_1", "params", 1, 120.0, 61.0)],  # of another metric
    ],
)
def test_is_a_picture(records):
    width, height = size_of(
        draw_accuracy_against_resource(records, best_of(records), "flops", "MFLOPs", "accuracy/top1")
    )
    assert 400 < height < width < 2000


def drawn(monkeypatch, records, metric="flops", unit="MFLOPs", accuracy="accuracy/top1"):
    """The axes of the picture."""
    from matplotlib.figure import Figure

    figures = []
    original = Figure.add_subplot
    monkeypatch.setattr(Figure, "add_subplot", lambda self: figures.append(original(self)) or figures[-1])
    draw_accuracy_against_resource(records, best_of(records), metric, unit, accuracy)
    return figures[0]


def test_draws_every_point_and_the_best_of_each_pool(monkeypatch):
    axes = drawn(monkeypatch, [LARGEST, SMALLEST, *POOLS, record("params_1", "params", 1, 120.0, 61.0)])
    lines = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()}
    assert len(lines["subnets of the pools"]) == 6
    assert lines["best of each pool"] == [(102, 64), (152, 65), (202, 66)]  # in order of the resource
    assert lines["largest subnet"] == [(300, 73)] and lines["smallest subnet"] == [(70, 60)]
    assert axes.get_xlabel() == "flops (MFLOPs)" and axes.get_ylabel() == "top1 (%)"


def test_accuracy_is_the_one_asked_for(monkeypatch):
    axes = drawn(monkeypatch, [LARGEST, SMALLEST, *POOLS], accuracy="accuracy/top5")
    assert {y for line in axes.get_lines() for y in line.get_ydata()} == {99}
    assert axes.get_ylabel() == "top5 (%)"


def test_same_records_give_the_same_picture():
    pictures = {draw_accuracy_against_resource(POOLS, BEST, "flops", "MFLOPs", "accuracy/top1") for _ in range(2)}
    assert len(pictures) == 1


def test_no_window_is_opened():
    import matplotlib.pyplot as plt

    draw_accuracy_against_resource(POOLS, BEST, "flops", "MFLOPs", "accuracy/top1")
    assert plt.get_fignums() == []
