"""Files in the IDX format, as the MNIST family of datasets comes in, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pss_razor.core import DataError

# Two zero bytes, the type (8: unsigned bytes); behind it the number of dimensions, and each in big-endian 32 bits.
_MAGIC = b"\x00\x00\x08"
_GZIP = b"\x1f\x8b"


def read_idx_file(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read unsigned bytes of any number of items of a known shape.

    Args:
        path: The file; a gzipped one is unpacked in memory.
        shape: Most items, and the shape of one: ``(60000, 28, 28)``. More items are an error, so that a damaged or
            hostile file does not fill the memory.

    Returns:
        uint8 (items, \\*shape of one).

    Raises:
        DataError: The file cannot be read, is of another format or shape, or ends early or late.
    """
    most, *of_one = shape
    header_size = len(_MAGIC) + 1 + 4 * len(shape)
    try:
        with path.open("rb") as raw, _unpacked(raw) as file:
            header = file.read(header_size)
            sizes = np.frombuffer(header[len(_MAGIC) + 1 :], dtype=">u4").tolist() if len(header) == header_size else []
            if header[: len(_MAGIC) + 1] != _MAGIC + bytes([len(shape)]) or sizes[1:] != of_one:
                raise _damaged(path, f"it does not begin as an IDX file of unsigned bytes (N, {of_one})")
            if sizes[0] > most:
                raise _damaged(path, f"it claims to have {sizes[0]} items, and at most {most} are possible")
            size = math.prod(sizes)
            content = file.read(size + 1)  # the end of a gzipped file is where its checksum is compared
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if len(content) != size:
        raise _damaged(
            path, f"its header says {size} bytes, and it has {'more' if len(content) > size else len(content)}"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(sizes)


def _unpacked(file: BinaryIO) -> BinaryIO | gzip.GzipFile:
    """A file as it is, or what a gzipped one holds."""
    start = file.read(len(_GZIP))
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if start == _GZIP else file


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}; remove it and get it again")
