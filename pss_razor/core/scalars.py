"""What counts as a number."""

from __future__ import annotations

import sys
from numbers import Real
from typing import Any


def is_scalar(value: Any) -> bool:
    """Whether a value is one number, numpy's scalars among them; NaN and infinity are, True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value from a file is a finite number, and not an integer beyond every float."""
    return is_scalar(value) and abs(value) <= sys.float_info.max
