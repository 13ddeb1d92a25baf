"""A subnet as a network of plain layers: a list of operations that is data, and runs without OpenMMLab."""

from pss_razor.static.static_net import StaticNet
from pss_razor.static.trace import trace_static

__all__ = ["StaticNet", "trace_static"]
