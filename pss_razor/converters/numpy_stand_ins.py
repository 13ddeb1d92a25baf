"""What untrusted pickles get in place of numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

_NUMBERS = ("f2", "f4", "f8", "i4", "i8")


def numpy_scalar_stand_ins() -> dict[str, Any]:
    """By the names that pickled numpy scalars ask for: stand-ins with which they become Python numbers.

    Numpy itself trusts what it unpickles: a dtype with a crafted state breaks it from within. The stand-ins are new
    ones each time, since a pickle can set attributes of the objects that it is given.
    """

    class Dtype:
        def __init__(self, code: str, *flags: Any) -> None:
            self.code, self.order = code, "="

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.order = state[1] if state[1] in ("<", ">") else "="

    def scalar(dtype: Dtype, data: bytes) -> int | float:
        if dtype.code not in _NUMBERS:
            raise ValueError(f"a numpy scalar of type {dtype.code!r:.50}")
        (value,) = np.frombuffer(data, np.dtype(f"{dtype.order}{dtype.code}")).tolist()
        return value

    return {
        "numpy.dtype": Dtype,
        "numpy.core.multiarray.scalar": scalar,  # numpy 1
        "numpy._core.multiarray.scalar": scalar,  # numpy 2
    }
