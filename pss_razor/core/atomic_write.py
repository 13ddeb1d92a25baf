"""Files that are never half written."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".tmp"


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment, a crash included, ``path`` is either as before or complete.

    A process that is killed while it writes leaves a temporary file beside ``path``, which the next write of the same
    file removes.

    Args:
        path: The file; its folder must exist. A link stays, and the file that it points to is replaced.
        data: The whole content.
    """
    path = Path(os.path.realpath(path))
    _remove_leftovers(path)
    temporary, file = _open_temporary(path)
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:  # Windows does not rename what is open
                file.close()
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # only there if something went wrong


def _open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file that is locked as long as it is open, which shows that its writer lives."""
    while True:
        # A name of its own: several processes may write the same file, as mmengine's logger does.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
        file = open(temporary, "xb")  # noqa: SIM115
        if fcntl is None:
            return temporary, file
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is removed either
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another process took it for a leftover before it was locked


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files whose writers are dead: those that can be locked."""
    if fcntl is None:
        return
    start = f".{path.name}."
    with os.scandir(path.parent) as entries:
        found = [e.path for e in entries if e.name.startswith(start) and e.name.endswith(_SUFFIX)]
    for leftover in found:
        if len(os.path.basename(leftover)) != len(start) + 8 + len(_SUFFIX):
            continue  # of another file, whose name begins as this one's
        with contextlib.suppress(OSError):  # its writer lives, it is gone, or it is not ours
            descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.unlink(leftover)
            finally:
                os.close(descriptor)
