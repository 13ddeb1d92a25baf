"""Connecting layers with the mutables of their widths."""

from __future__ import annotations

from torch import nn

from pss_razor.models.mutables import PrefixMutableChannel, ScaledChannel

from mmrazor.models.mutables import MutableChannelContainer


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
