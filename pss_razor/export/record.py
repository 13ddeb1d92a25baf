"""A record of the files in an export folder, from which a later run knows what is complete."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pss_razor.core import atomic_write, parse_json

RECORD_FILE = "export.json"


class ExportRecord:
    """The complete files of a folder, by format, in ``export.json``.

    A file counts as complete only if it has the bytes that were checked against the supernet, and the record was made
    for the same ``key``.

    Args:
        folder: The folder.
        key: JSON-able; all that the files depend on: checkpoint, calibration, subnet, … None: nothing is complete.
    """

    def __init__(self, folder: Path, key: Any) -> None:
        self._path = folder / RECORD_FILE
        self._key = None if key is None else _plain(key)
        self._formats: dict[str, Any] = {}
        try:
            found = parse_json(self._path.read_bytes())
            if key is not None and found["key"] == self._key:
                self._formats = dict(found["formats"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no record, or none of ours: the files are made anew

    def facts(self, name: str, settings: Any = None) -> dict[str, Any] | None:
        """What :meth:`add` was told of a format, if it is complete and was made with these settings; else None."""
        entry = self._formats.get(name)
        if not isinstance(entry, dict) or entry.get("settings") != _plain(settings):
            return None
        files = entry.get("sha256", {})
        if not isinstance(files, dict) or any(os.path.basename(file) != file for file in files):
            return None  # not what add() writes
        if any(hash_file(self._path.parent / file) != digest for file, digest in files.items()):
            return None
        facts = entry.get("facts")
        return facts if isinstance(facts, dict) else None

    def add(self, name: str, files: Iterable[str], facts: dict[str, Any], settings: Any = None) -> None:
        """Note that the files of a format are complete.

        Args:
            name: The format.
            files: Its files, in the folder.
            facts: JSON-able; what was found about them.
            settings: JSON-able; what they depend on besides the key.
        """
        digests = {file: hash_file(self._path.with_name(file)) for file in files}
        self._formats[name] = {"settings": _plain(settings), "sha256": digests, "facts": _plain(facts)}
        document = {"key": self._key, "formats": self._formats}
        # A subnet that is only in a bundle has no files of its own.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self._path, f"{json.dumps(document, indent=1)}\n".encode())


def _plain(value: Any) -> Any:
    """The value as it is after writing and reading JSON."""
    return json.loads(json.dumps(value))


def hash_file(path: Path) -> str | None:
    """SHA-256 of a file, in hexadecimal; None if there is no such file."""
    if not os.path.isfile(path):  # unlike open, no error for a name that is too long
        return None
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
