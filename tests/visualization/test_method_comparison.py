from __future__ import annotations

import numpy as np
import pytest

from pss_razor.visualization import draw_method_comparison, figure_of_method_comparison

CURVES = {
    "flops": {"pss": [(3.0, 97.0, 0.5), (2.0, 95.0, 0.25)], "usnet": [(3.1, 96.0, 0.75)], "none": []},
    "params": {"pss": [(1.0, 90.0, 1.0)], "usnet": [], "none": []},
}
UNITS = {"flops": "MFLOPs", "params": "M params"}


def test_draws_means_and_errors():
    figure = figure_of_method_comparison(CURVES, UNITS, "accuracy/top1")
    flops, params = figure.axes
    assert flops.get_xlabel() == "flops (MFLOPs)" and params.get_xlabel() == "params (M params)"
    assert flops.get_ylabel() == "top1 (%)" and flops.get_xscale() == "log"
    drawn = {line.get_label(): line for line in flops.lines if not line.get_label().startswith("_")}
    assert set(drawn) == {"pss", "usnet"}
    assert [line.get_label() for line in params.lines if not line.get_label().startswith("_")] == ["pss"]
    assert list(zip(*drawn["pss"].get_data(), strict=True)) == [(2, 95), (3, 97)]
    # The band: below the line and back above it.
    band = flops.collections[0].get_paths()[0].vertices
    for corner in [(2, 94.75), (3, 96.5), (3, 97.5), (2, 95.25)]:
        assert np.isclose(band, corner).all(axis=1).any()
    # A single point has a bar.
    (container,) = flops.containers
    _, _, (bars,) = container
    assert bars.get_segments()[0][:, 1] == pytest.approx([95.25, 96.75])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["pss", "usnet"]


def test_methods_differ_in_colour_and_marker():
    curves = {"flops": {f"m{n}": [(1.0, n, 0.1), (2.0, n + 1, 0.1)] for n in range(7)}}
    lines = figure_of_method_comparison(curves, UNITS, "accuracy/top1").axes[0].lines
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 7


def test_is_a_picture():
    assert draw_method_comparison(CURVES, UNITS, "accuracy/top1").startswith(b"\x89PNG\r\n\x1a\n")
