"""Weights that belong to no layer, as a module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StaticParameter(nn.Module):
    """A parameter as a module: a layer scale, a class token.

    Args:
        shape: Its shape.
        is_learned: Whether it is a parameter; else it is a buffer.
    """

    value: Tensor

    def __init__(self, shape: Sequence[int], is_learned: bool = True) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.is_learned = is_learned
        value = torch.zeros(self.shape)
        if is_learned:
            self.value = nn.Parameter(value)
        else:
            self.register_buffer("value", value)

    @classmethod
    def of(cls, value: Tensor) -> StaticParameter:
        """With a copy of a parameter or buffer."""
        made = cls(value.shape, isinstance(value, nn.Parameter)).to(value.device, value.dtype)
        with torch.no_grad():
            made.value.copy_(value)
        return made

    def forward(self) -> Tensor:
        """The parameter."""
        return self.value
