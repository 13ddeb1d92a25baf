"""Prioritized Subnet Sampling for MMRazor.

This package imports nothing by itself, so that ``pss_razor.core`` needs numpy alone and ``pss_razor.deploy`` torch,
numpy and safetensors. ``import pss_razor.plugin`` registers everything with MMRazor.
"""

from pss_razor.version import __version__

__all__ = ["__version__"]
