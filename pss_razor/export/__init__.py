"""Export: choose subnets, write them as static networks in several formats, compare and measure them.

The module can be called: ``pss_razor.export(…)`` is :func:`pss_razor.export.export_measured.export`.
"""

import sys
import types
from typing import Any


class _CallableModule(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from pss_razor.export.export_measured import export

        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
