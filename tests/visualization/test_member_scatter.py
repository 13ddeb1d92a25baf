from __future__ import annotations

import pytest

from pss_razor.visualization import ScatterPanel, draw_diagnosis, draw_scores, figure_of_diagnosis, figure_of_scores

PANELS = [
    ScatterPanel("a pool", [70.0, 72.0, 74.0], [-1.0, -0.5, -0.7], 71.0, visits=[1, 5, 9], ages=[30, 20, None]),
    ScatterPanel("another", [60.0], [-2.0], None, visits=[3], ages=[7]),
    ScatterPanel("empty", [], []),
]


def test_a_panel_for_each_pool():
    figure = figure_of_scores(PANELS, "accuracy/top1", "the level")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["a pool", "another", "empty"]
    points, level = panels[0].lines
    assert list(zip(*points.get_data(), strict=True)) == [(-1.0, 70.0), (-0.5, 72.0), (-0.7, 74.0)]
    assert set(level.get_ydata()) == {71.0}
    assert len(panels[1].lines) == 1
    assert figure.get_supylabel() == "top1 (%)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["the level"]
    assert len([axes for axes in figure_of_scores(PANELS * 3, "x").axes if axes.get_visible()]) == 9


def test_below_are_accuracies_above_the_mean_of_their_pool():
    figure = figure_of_diagnosis(PANELS, "accuracy/top1")
    by_visits, by_age = figure.axes[-2:]
    points = [tuple(p) for line in by_visits.lines[:2] for p in zip(*line.get_data(), strict=True)]
    assert points == [(1, -2.0), (5, 0.0), (9, 2.0), (3, 0.0)]
    assert [tuple(p) for p in zip(*by_age.lines[0].get_data(), strict=True)] == [(30, -2.0), (20, 0.0)]


@pytest.mark.parametrize("draw", [draw_scores, draw_diagnosis])
@pytest.mark.parametrize("panels", [PANELS, PANELS[:1], []])
def test_is_a_picture(draw, panels):
    assert draw(panels, "accuracy/top1", "level").startswith(b"\x89PNG\r\n\x1a\n")
