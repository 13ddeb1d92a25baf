"""Mutables: what can be searched."""

from pss_razor.models.mutables.prefix_channel_container import PrefixChannelContainer
from pss_razor.models.mutables.prefix_mutable_channel import PrefixMutableChannel
from pss_razor.models.mutables.scaled_channel import ScaledChannel

__all__ = ["PrefixChannelContainer", "PrefixMutableChannel", "ScaledChannel"]
