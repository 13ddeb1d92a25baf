"""A stand-in for what processes of an export do; of a module, so that they can import it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pss_razor.core import ExportError
from pss_razor.export.network_files import NetworkFiles


def write_files(wanted: NetworkFiles) -> Iterator[tuple[str, float]]:
    """Refuse the network that ``REFUSED`` names; of others write empty files."""
    if wanted.folder.name == os.environ["REFUSED"]:
        raise ExportError(f"{wanted.folder.name}: refused")
    wanted.folder.mkdir()
    (wanted.folder / "model.pt2").touch()
    yield "pt2", 0.0
