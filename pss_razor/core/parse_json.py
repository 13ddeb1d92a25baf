"""JSON that need not be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pss_razor.core.errors import ConfigError

# Far above what any of our files has.
MAX_NESTING = 32
_MAX_DIGITS = 400


def parse_json(data: bytes) -> Any:
    """Parse JSON that need not be trusted, in time and memory proportional to its length.

    The worst that was found, lists in lists, takes 40 bytes of memory for each byte of ``data``.

    Args:
        data: The document, UTF-8.

    Raises:
        ValueError: It is not JSON, has an integer of more than 400 digits, or nests deeper than :data:`MAX_NESTING`.
    """
    text = data.decode()
    # json recurses. Python's recursion limit guards the stack, but libraries raise it too far (mmrazor does).
    # Once escapes are removed, every second part between quotation marks is a string. Outside of strings a backslash is
    # an error, at which json stops.
    outside = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    characters = np.frombuffer(outside, dtype=np.uint8)
    steps = np.zeros(256, dtype=np.int8)
    steps[list(b"[{")], steps[list(b"]}")] = 1, -1
    if np.max(np.cumsum(steps[characters], dtype=np.int32), initial=0) > MAX_NESTING:
        raise ValueError(f"it nests deeper than {MAX_NESTING} levels")
    return json.loads(text, parse_int=_parse_int)


def read_json_file(path: Path, kind: str, remedy: str) -> Any:
    """Read a file by :func:`parse_json`.

    Args:
        path: The file.
        kind: What it is, for errors, such as ``"results file"``.
        remedy: What to do where it is missing.

    Raises:
        ConfigError: It is missing, cannot be read, or is not JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{kind} {path} does not exist; {remedy}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{kind} {path} is not JSON: {error}") from error


def check_nesting(value: object) -> None:
    """Check that a value is not nested so deeply that JSON's recursion would exhaust the stack.

    Raises:
        ValueError: It nests deeper than :data:`MAX_NESTING` levels.
    """
    level = [value]
    for _ in range(MAX_NESTING):
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list, tuple))
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise ValueError(f"it nests deeper than {MAX_NESTING} levels")


def _parse_int(digits: str) -> int:
    # The time that int() takes grows with the square of the length.
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)
