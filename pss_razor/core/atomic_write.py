"""Files that are never half written."""

from __future__ import annotations

import os
from pathlib import Path


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment, a crash included, ``path`` is either as before or complete.

    The temporary name is always the same, so that what a killed process left is overwritten by the next attempt.

    Args:
        path: The file; its folder must exist, and one process writes it at a time.
        data: The whole content.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # only there if something went wrong
