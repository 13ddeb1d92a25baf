from __future__ import annotations

import numpy as np

from pss_razor.visualization import draw_method_comparison, figure_of_method_comparison

CURVES = {
    "flops": {"pss": [(3.0, 97.0, 0.5), (2.0, 95.0, 0.25)], "usnet": [(3.1, 96.0, 0.0)], "none": []},
    "params": {"pss": [(1.0, 90.0, 1.0)], "usnet": [], "none": []},
}
UNITS = {"flops": "MFLOPs", "params": "M params"}


def test_draws_means_and_errors():
    figure = figure_of_method_comparison(CURVES, UNITS, "accuracy/top1")
    flops, params = figure.axes
    assert flops.get_xlabel() == "flops (MFLOPs)" and params.get_xlabel() == "params (M params)"
    assert flops.get_ylabel() == "top1 (%)"
    drawn = {container.get_label(): container for container in flops.containers}
    assert set(drawn) == {"pss", "usnet"} and [c.get_label() for c in params.containers] == ["pss"]
    line, _, (bars,) = drawn["pss"]
    assert list(zip(*line.get_data(), strict=True)) == [(2, 95), (3, 97)]
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], [[94.75, 95.25], [96.5, 97.5]])


def test_is_a_picture():
    assert draw_method_comparison(CURVES, UNITS, "accuracy/top1").startswith(b"\x89PNG\r\n\x1a\n")
