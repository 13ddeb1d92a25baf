"""What untrusted pickles get in place of numpy.

Numpy trusts what it unpickles: ``numpy.ndarray`` called with the dtype ``"O"`` and some bytes is an array of pointers
that a file chose, and so is one of a dtype with a crafted state; reading an element crashes the process or does worse.
``tests/test_compat.py`` has such files. So no pickle gets numpy's own functions: each name is served by a stand-in that
checks what it is given and knows plain numbers alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_NUMBERS = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
_MAX_DIMENSIONS = 32


def numpy_stand_ins() -> dict[str, Any]:
    """Stand-ins by the names that pickled arrays and scalars of numpy 1 and 2 ask for.

    The results are numpy's own scalars, and arrays that behave as numpy's do and are pickled as such. The stand-ins are
    new ones each time, since a pickle may be able to set attributes of the objects that it is given.
    """

    class Dtype:
        """A dtype that is looked up when it is used."""

        def __init__(self, code: str, *flags: Any) -> None:
            self.code, self.order = code, "="

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.order = state[1] if state[1] in ("<", ">") else "="

    def numpy_dtype(dtype: Any) -> np.dtype:
        if type(dtype) is not Dtype or type(dtype.code) is not str or dtype.code not in _NUMBERS:
            raise ValueError("a type that is not one of plain numbers")
        return np.dtype(f"{dtype.order}{dtype.code}")

    class Array(np.ndarray):
        """An array that is filled once, with as many bytes as its shape needs."""

        # It takes none of numpy's arguments: dtype and buffer together could make pointers.
        def __new__(cls) -> Array:
            return super().__new__(cls, (0,))

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            _, shape, dtype, is_fortran, data = state
            numbers = numpy_dtype(dtype)
            good = type(shape) is tuple and len(shape) <= _MAX_DIMENSIONS and all(type(n) is int for n in shape)
            if not good or min(shape, default=0) < 0 or type(data) is not bytes:
                raise ValueError("an array of a shape that is none, or of no bytes")
            if self.__dict__ or math.prod(shape) * numbers.itemsize != len(data):
                raise ValueError(f"an array of shape {shape} in {len(data)} bytes, or filled twice")
            self.__dict__["filled"] = True
            content: Any = (1, shape, numbers, bool(is_fortran), data)
            super().__setstate__(content)

        def __reduce__(self) -> Any:
            return self.view(np.ndarray).__reduce__()

    def reconstruct(*arguments: Any) -> Array:
        return Array()

    def scalar(dtype: Any, data: bytes) -> np.generic:
        (value,) = np.frombuffer(data, numpy_dtype(dtype))
        return value

    return {
        "numpy.dtype": Dtype,
        "numpy.ndarray": Array,
        **_both("_reconstruct", reconstruct),
        **_both("scalar", scalar),
    }


def numpy_scalar_stand_ins() -> dict[str, Any]:
    """As :func:`numpy_stand_ins`, but scalars alone, which become Python numbers."""
    stand_ins = numpy_stand_ins()
    scalar = stand_ins["numpy._core.multiarray.scalar"]

    def number(dtype: Any, data: bytes) -> int | float:
        return scalar(dtype, data).item()

    return {"numpy.dtype": stand_ins["numpy.dtype"], **_both("scalar", number)}


def _both(name: str, stand_in: Any) -> dict[str, Any]:
    return {f"numpy.{core}.multiarray.{name}": stand_in for core in ("core", "_core")}
