"""Prioritized Subnet Sampling for MMRazor.

This package imports nothing by itself, so that ``pss_razor.core`` needs numpy alone, ``pss_razor.deploy`` torch, numpy
and safetensors, and :func:`convert` torch and numpy. ``import pss_razor.plugin`` registers everything with MMRazor.
"""

from typing import TYPE_CHECKING, Any

from pss_razor.version import __version__

if TYPE_CHECKING:
    from pss_razor.conversion import convert

__all__ = ["__version__", "convert"]


def __getattr__(name: str) -> Any:
    if name == "convert":
        from pss_razor.conversion import convert

        return convert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
