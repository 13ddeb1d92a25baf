"""Pictures of results."""

from pss_razor.visualization.accuracy_resource import draw_accuracy_against_resource

__all__ = ["draw_accuracy_against_resource"]
