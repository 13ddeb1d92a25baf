"""Files that are never half written."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment, a crash included, ``path`` is either as before or complete.

    Args:
        path: The file; its folder must exist. A link stays, and the file that it points to is replaced.
        data: The whole content.
    """
    path = Path(os.path.realpath(path))
    # A name of its own: several processes may write the same file, as mmengine's logger does.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # only there if something went wrong
