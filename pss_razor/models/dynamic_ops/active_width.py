"""How many channels of a dynamic op are active."""

from __future__ import annotations

from typing import Any

from torch import nn


def active_width(op: nn.Module, attribute: str, full: int) -> int:
    """Active channels of one side of a dynamic op.

    Args:
        op: A dynamic op of MMRazor's kind.
        attribute: Key of its ``mutable_attrs``.
        full: The full network's channels, for a side that no mutable governs.
    """
    # What `op.mutable_attrs[attribute]` is, in a third of the time; a pass asks hundreds of times.
    mutable: Any = op._modules["mutable_attrs"]._modules.get(attribute)  # type: ignore[union-attr]
    return full if mutable is None else mutable.activated_channels
