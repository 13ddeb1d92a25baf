"""What counts as a number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from numbers import Real
from typing import Any


def is_scalar(value: Any) -> bool:
    """Whether a value is a single real number, numpy's included; NaN and infinity count, True and False do not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a single finite number, and no integer that is too large for a float."""
    return is_scalar(value) and abs(value) <= sys.float_info.max


def are_two_numbers(value: Any) -> bool:
    """Whether a value of a config or a file is a sequence of two finite numbers."""
    return isinstance(value, Sequence) and len(value) == 2 and all(map(is_number, value))
