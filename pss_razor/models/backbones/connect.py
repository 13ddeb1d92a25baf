"""The mutables of a backbone's widths, and connecting layers with them."""

from __future__ import annotations

from torch import nn

from pss_razor.core import width_choices
from pss_razor.models.mutables import PrefixMutableChannel, ScaledChannel

from mmrazor.models.mutables import MutableChannelContainer


def searched_width(name: str, base_width: int, width_range: tuple[float, float]) -> PrefixMutableChannel:
    """A width that is searched.

    Args:
        name: Of the search group.
        base_width: Channels of the full network.
        width_range: Smallest and largest width multiplier; multipliers are uniform in between.
    """
    return PrefixMutableChannel(base_width, width_choices(base_width, *width_range), alias=name)


def connect(
    conv: nn.Module,
    norm: nn.Module | None,
    width_in: PrefixMutableChannel | ScaledChannel | None,
    width_out: PrefixMutableChannel | ScaledChannel | None,
) -> None:
    """Let a conv and the norm after it follow their widths; None leaves a side at its full width."""
    register = MutableChannelContainer.register_mutable_channel_to_module
    if width_in is not None:
        register(conv, width_in, is_to_output_channel=False)
    if width_out is not None:
        register(conv, width_out, is_to_output_channel=True)
        if norm is not None:
            register(norm, width_out, is_to_output_channel=True)
