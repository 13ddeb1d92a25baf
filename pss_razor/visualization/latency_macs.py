"""Measured latency against multiply-accumulates."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def draw_latency_against_macs(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> bytes:
    """Draw latencies of subnets.

    Args:
        rows: A mapping for each subnet, with ``flops`` (1e6 MACs) and latencies in microseconds, or None where there is
            none.
        columns: Key of a latency -> its label.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for key, label in columns.items():
        points = sorted((row["flops"], row[key] / 1e3) for row in rows if row[key] is not None)
        axes.plot(*zip(*points, strict=True), "o--" if "predicted" in label else "o-", ms=4, label=label)
    axes.set(xlabel="MFLOPs (1e6 multiply-accumulates)", ylabel="latency (ms)", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
