"""The figure, by the data of its axes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pss_razor.core import ConfigError
from pss_razor.visualization import (
    Curve,
    draw_main_result,
    figure_of_main_result,
    published_curves,
    published_results,
)


def lines(figure):
    """(title, x label) -> label -> points."""
    panels = {}
    for axes in figure.axes:
        drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}
        panels[axes.get_title(), axes.get_xlabel()] = drawn
    return panels


OURS = [
    Curve("mbv2", "flops", "ours", "MFLOPs", ((200.0, 71.0), (100.0, 66.0))),
    Curve("mbv2", "latency_cpu", "ours", "us", ((20000.0, 70.0),)),
    Curve("mbv1", "latency_gpu", "ours", "ms", ((0.25, 74.0),)),
]


def test_panels_points_and_units():
    figure = figure_of_main_result(OURS)
    panels = lines(figure)
    columns = ["FLOPs (MFLOPs)", "GPU latency (µs)", "CPU latency (ms)"]
    assert list(panels) == [(row, column) for row in ("MobileNetV1", "MobileNetV2") for column in columns]
    assert panels["MobileNetV2", columns[0]] == {"ours": [(100, 66), (200, 71)]}  # in order of the resource
    assert panels["MobileNetV2", columns[2]] == {"ours": [(pytest.approx(20), 70)]}
    assert panels["MobileNetV1", columns[1]] == {"ours": [(pytest.approx(250), 74)]}
    assert panels["MobileNetV1", columns[0]] == {}
    empty = [axes for axes in figure.axes if not axes.lines]
    assert len(empty) == 3 and all([text.get_text() for text in axes.texts] == ["no results"] for axes in empty)
    assert {axes.get_ylabel() for axes in figure.axes} == {"top-1 (%)"}


def test_resnet_has_a_row_if_there_are_results_of_it():
    figure = figure_of_main_result([*OURS, Curve("r50", "flops", "r", "MFLOPs", ((4000.0, 77.0),))])
    assert len(figure.axes) == 9
    assert lines(figure)["ResNet-50", "FLOPs (MFLOPs)"] == {"r": [(4000, 77)]}


X_LABELS = {"flops": "FLOPs (MFLOPs)", "latency_gpu": "GPU latency (µs)", "latency_cpu": "CPU latency (ms)"}


def test_all_published_points(reference):
    """Every point of the authors' figure: the supernets', US-Net's and MutualNet's."""
    series = json.loads((reference / "paper_figure.json").read_text())["series"]
    assert len(series) == 24 and sum(len(s["points"]) for s in series) > 500
    panels = lines(figure_of_main_result(published_curves()))
    for own in series:  # MMACs, us and ms are the panels' units
        drawn = panels[own["backbone"], X_LABELS[own["metric"]]].pop(f"{own['method']} (published)")
        np.testing.assert_allclose(drawn, sorted(own["points"]))
    assert not any(panels.values()) and len(panels) == 6


def test_points_of_the_tables(reference):
    results = json.loads((reference / "paper_results.json").read_text())["results"]
    supernets = {result["supernet"] for result in results}
    found = [curve for supernet in supernets for curve in published_results(supernet)]
    assert len(supernets) == 8 and len(found) == len(results) == 12 and all(curve.published for curve in found)
    by_key = {(curve.label, curve.metric): curve for curve in found}
    for result in results:
        curve = by_key[result["supernet"], result["metric"]]
        assert (curve.backbone, curve.unit) == (result["supernet"][4:8].lower(), result["unit"])
        assert [list(point) for point in curve.points] == result["points"]


def test_other_data_have_axes_of_their_own():
    """At 99 % and 5 MFLOPs, which would squeeze the published curves into a corner."""
    digits = Curve("mbv2", "flops", "D", "MFLOPs", ((2.0, 97.0), (5.0, 99.0)), dataset="Digits, 10 classes")
    published = published_curves()
    alone, figure = figure_of_main_result(published), figure_of_main_result([*published, digits, *OURS])
    assert len(figure.axes) == len(alone.axes) + 3
    for axes in figure.axes[:6]:
        assert "D" not in {line.get_label() for line in axes.lines}
        assert axes.get_ylim()[1] < 80
    own = figure.axes[6]
    assert own.get_title() == "MobileNetV2\nDigits, 10 classes"
    assert [list(zip(*line.get_data(), strict=True)) for line in own.lines] == [[(2, 97), (5, 99)]]
    assert [axes.get_visible() for axes in figure.axes[6:]] == [True, False, False]
    assert len(figure_of_main_result([digits]).axes) == 3  # no empty rows of ImageNet


def test_compact_leaves_out_what_is_empty():
    titles = {axes.get_title(): axes for axes in figure_of_main_result(OURS[:1], compact=True).axes}
    assert list(titles) == ["MobileNetV2"] and titles["MobileNetV2"].get_xlabel() == "FLOPs (MFLOPs)"


def test_legends_cover_no_points():
    figure = figure_of_main_result([*published_curves(), *OURS])
    figure.canvas.draw()
    for axes in figure.axes:
        legend = axes.get_legend()
        labels = {text.get_text() for text in legend.get_texts()}
        assert labels == {line.get_label() for line in axes.lines}
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_published_points_are_marked_and_in_the_colour_of_ours():
    ours = Curve("mbv2", "flops", "PSS-MBV2-F", "MFLOPs", ((200.0, 71.0),))
    (axes,) = [a for a in figure_of_main_result([*published_curves(), ours]).axes if a.get_title() == "MobileNetV2"
               and a.get_xlabel().startswith("FLOPs")]  # fmt: skip
    by_label = {line.get_label(): line for line in axes.lines}
    published, own = by_label["PSS-MBV2-F (published)"], by_label["PSS-MBV2-F"]
    assert published.get_color() == own.get_color() and published.get_marker() != own.get_marker()
    assert len(axes.lines) == 5  # and PSS-MBV2-M, US-Net, MutualNet


@pytest.mark.parametrize("name", ["paper_results.json", "paper_figure.json"])
def test_the_data_name_their_source(name):
    import pss_razor.visualization

    document = json.loads(Path(pss_razor.visualization.__file__).with_name(name).read_text())
    assert "2109.05432" in document["source"] and "not measured here" in document["note"].lower()


@pytest.mark.parametrize("unit", ["MFLOPs", "minutes"])
def test_units_that_do_not_fit(unit):
    with pytest.raises(ConfigError, match=f"ours: latency_cpu is in '{unit}'; .*'ms'"):
        figure_of_main_result([Curve("mbv2", "latency_cpu", "ours", unit, ((1.0, 70.0),))])


def test_nothing_to_draw():
    with pytest.raises(ConfigError, match=r"nothing to draw.*--published"):
        figure_of_main_result([])


def test_is_a_picture():
    assert draw_main_result(OURS).startswith(b"\x89PNG\r\n\x1a\n")
