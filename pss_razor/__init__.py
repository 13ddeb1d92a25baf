"""Prioritized Subnet Sampling for MMRazor.

This package imports nothing by itself, so that ``pss_razor.core`` needs numpy alone, ``pss_razor.deploy`` torch, numpy
and safetensors, and :func:`convert` torch and numpy. :func:`fit`, :func:`evaluate` and :func:`export` need the extra
``train``. ``import pss_razor.plugin`` registers everything with MMRazor.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pss_razor.version import __version__

if TYPE_CHECKING:
    from pss_razor.conversion import convert
    from pss_razor.export.export_measured import export
    from pss_razor.plain.evaluate import evaluate
    from pss_razor.plain.fit import fit

__all__ = ["__version__", "convert", "evaluate", "export", "fit"]

_PLACES = {"convert": "pss_razor.conversion", "evaluate": "pss_razor.plain.evaluate", "fit": "pss_razor.plain.fit"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name == "export":  # a package that can be called
        return importlib.import_module("pss_razor.export")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
