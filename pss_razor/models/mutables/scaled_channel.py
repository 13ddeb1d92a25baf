"""A width that follows another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pss_razor.registry import MODELS

from mmrazor.models.mutables import DerivedMutable
from mmrazor.models.mutables.base_mutable import BaseMutable

if TYPE_CHECKING:
    from pss_razor.models.mutables.prefix_mutable_channel import PrefixMutableChannel


@MODELS.register_module()
class ScaledChannel(DerivedMutable):
    """``source * numerator // denominator`` channels, such as the hidden width of a block.

    MMRazor's ``DerivedMutable`` keeps its rule in closures, which a deep copy shares with the original, so that a
    copied supernet (an EMA of it, say) would follow the original's widths. This one keeps numbers.

    Args:
        source: The width that is followed.
        numerator: Factor.
        denominator: Divisor.
    """

    def __init__(self, source: PrefixMutableChannel, numerator: int = 1, denominator: int = 1) -> None:
        # DerivedMutable.__init__ would need the closures.
        BaseMutable.__init__(self)
        self.source = source
        self.numerator = numerator
        self.denominator = denominator
        self.num_channels = source.num_channels * numerator // denominator

    @property
    def current_choice(self) -> int:
        """Number of active channels."""
        source: Any = self._modules["source"]  # quicker than by nn.Module's getattr
        return source.current_choice * self.numerator // self.denominator

    @property
    def current_mask(self) -> torch.Tensor:
        """Boolean mask (num_channels,), for the parts of MMRazor that look at masks."""
        return torch.arange(self.num_channels) < self.current_choice

    @property
    def source_mutables(self) -> set[BaseMutable]:
        """The mutable that is followed, for MMRazor."""
        return {self.source}

    def _trace_source_mutables(self) -> set[BaseMutable]:
        return self.source_mutables

    def __repr__(self) -> str:
        return f"{self.source.alias} * {self.numerator} // {self.denominator} = {self.current_choice}"
