"""The mutables of a backbone's widths, and connecting layers with them."""

from __future__ import annotations

from torch import nn

from pss_razor import compat
from pss_razor.core import width_choices
from pss_razor.models.mutables import PrefixChannelContainer, PrefixMutableChannel, ScaledChannel

from mmrazor.models.mutables import MutableChannelContainer


def searched_width(name: str, base_width: int, width_range: tuple[float, float]) -> PrefixMutableChannel:
    """The mutable of a width of at most ``base_width`` channels, with a probability for each choice.

    Args:
        name: Name of the search group.
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
    for op in filter(None, (conv, norm)):
        compat.register_channel_container(op, PrefixChannelContainer)
    register = MutableChannelContainer.register_mutable_channel_to_module
    if width_in is not None:
        register(conv, width_in, is_to_output_channel=False)
    if width_out is not None:
        register(conv, width_out, is_to_output_channel=True)
        if norm is not None:
            register(norm, width_out, is_to_output_channel=True)


class OutputWidthMixin:
    """A backbone whose output width is searched: :class:`SlicedLinearClsHead` follows it."""

    _output_width: tuple[PrefixMutableChannel]

    def set_output_width(self, width: PrefixMutableChannel) -> None:
        """Set the mutable of the last feature map's width."""
        # A tuple, so that the mutable is not registered as a submodule.
        self._output_width = (width,)

    @property
    def last_mutable(self) -> PrefixMutableChannel:
        """The mutable of the output's channels, by MMRazor's name for it."""
        return self._output_width[0]
