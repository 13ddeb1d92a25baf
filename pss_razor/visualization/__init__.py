"""Pictures of results."""

from pss_razor.core import check_extra
from pss_razor.visualization.accuracy_resource import draw_accuracy_against_resource
from pss_razor.visualization.main_result import (
    Curve,
    draw_main_result,
    figure_of_main_result,
    published_curves,
    published_results,
)
from pss_razor.visualization.member_scatter import (
    ScatterPanel,
    draw_diagnosis,
    draw_scores,
    figure_of_diagnosis,
    figure_of_scores,
)
from pss_razor.visualization.method_comparison import draw_method_comparison, figure_of_method_comparison

__all__ = [
    "Curve",
    "ScatterPanel",
    "draw_accuracy_against_resource",
    "draw_diagnosis",
    "draw_main_result",
    "draw_method_comparison",
    "draw_scores",
    "figure_of_diagnosis",
    "figure_of_main_result",
    "figure_of_method_comparison",
    "figure_of_scores",
    "published_curves",
    "published_results",
]

check_extra("train", "matplotlib", what="drawing")
