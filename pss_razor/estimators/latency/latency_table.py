"""Measured latencies of blocks, by their geometry."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pss_razor.core import ConfigError, atomic_write, is_number, read_json_file
from pss_razor.core.cost_graph import BlockGeometry

# Format 1, of version 0.1, differs in the hidden width of some blocks, see _without_redundant_widths. Formats 1 and 2
# have no column of several widths.
_FORMAT = 3
_COLUMNS = [*BlockGeometry._fields, "latency_us"]
_READABLE = {1: [c for c in _COLUMNS if c != "widths"], 2: [c for c in _COLUMNS if c != "widths"], _FORMAT: _COLUMNS}


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of blocks on one device.

    Args:
        latencies_us: Block -> microseconds an image.
        device: ``"cpu"`` or ``"cuda"``.
        provenance: How it was measured: device name, backend, threads, batch, dtype, versions, date, …
        correction: ``(factor, offset_us)`` of an affine correction from the sum over blocks to a whole network's
            latency, fitted on measured subnets.
        interpolate: Whether blocks between measured ones may be interpolated; else a missing block is an error.
    """

    latencies_us: Mapping[BlockGeometry, float]
    device: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    correction: tuple[float, float] = (1.0, 0.0)
    interpolate: bool = False

    def __post_init__(self) -> None:
        for geometry, latency_us in self.latencies_us.items():
            if not (math.isfinite(latency_us) and latency_us >= 0):
                raise ConfigError(f"latency table: {geometry} has {latency_us} µs; measure it again")

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        document = {
            "format": _FORMAT,
            "unit": "us",
            "device": self.device,
            "provenance": dict(self.provenance),
            "correction": list(self.correction),
            "interpolate": self.interpolate,
            "columns": _COLUMNS,
        }
        head = json.dumps(document, indent=1)[:-2]
        rows = ",\n  ".join(json.dumps([*geometry, value]) for geometry, value in self.latencies_us.items())
        atomic_write(path, f'{head},\n "rows": [\n  {rows}\n ]\n}}\n'.encode())

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigError: The file is missing, of another kind, or has an entry that is not a latency.
        """
        path = Path(path)
        document = read_json_file(
            path,
            "latency table",
            "measure one on the device that it is for with pss-latency CONFIG --device cpu|cuda --out FILE.json, or "
            "import the authors' with tools/converters/pssnet.py latency-table, and name it in the estimator's table",
        )
        found = document.get("format") if isinstance(document, dict) else None
        columns = _READABLE.get(found) if isinstance(found, int) else None
        if columns is None or document.get("columns") != columns:
            raise ConfigError(f"{path} is not a latency table of format {_FORMAT}")
        latencies_us: dict[BlockGeometry, float] = {}
        correction, rows = document.get("correction"), document.get("rows")
        if not isinstance(correction, list) or len(correction) != 2 or not all(map(is_number, correction)):
            raise ConfigError(f"latency table {path}: the correction is {correction!r:.200}, not two numbers")
        if not isinstance(document.get("device"), str) or not isinstance(document.get("provenance"), dict):
            raise ConfigError(f"latency table {path} does not say its device and provenance")
        if not isinstance(rows, list):
            raise ConfigError(f"latency table {path} has no rows")
        for row in rows:
            if not isinstance(row, list) or len(row) != len(columns) or not _is_row(row):
                raise ConfigError(f"latency table {path}: row {row!r:.200} is not {columns}")
            sizes: Any = (tuple(size) if isinstance(size, list) else size for size in row[:-1])
            latencies_us[BlockGeometry(*sizes)] = float(row[-1])
        if document["format"] == 1:
            latencies_us = _without_redundant_widths(latencies_us)
        factor, offset_us = map(float, correction)
        interpolate = document.get("interpolate") is True
        try:
            return cls(latencies_us, document["device"], document["provenance"], (factor, offset_us), interpolate)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _without_redundant_widths(latencies_us: Mapping[BlockGeometry, float]) -> dict[BlockGeometry, float]:
    """Convert blocks of version 0.1, which wrote the input width as the hidden one for kinds that have none.

    Such a kind has equal input and hidden widths in every row.
    """
    hidden = {geometry.block_type for geometry in latencies_us if geometry.cmid != geometry.cin}
    return {g if g.block_type in hidden else g._replace(cmid=None): value for g, value in latencies_us.items()}


def _is_row(row: list[Any]) -> bool:
    """Whether it is a kind of block, its sizes, and a number."""
    block_type, *sizes, latency_us = row
    widths = sizes.pop() if len(row) == len(_COLUMNS) else None
    return (
        isinstance(block_type, str)
        and all(size is None or type(size) is int for size in sizes)
        and (widths is None or (isinstance(widths, list) and all(type(width) is int for width in widths)))
        and (is_number(latency_us) or isinstance(latency_us, float))  # one that is not finite has an error of its own
    )
