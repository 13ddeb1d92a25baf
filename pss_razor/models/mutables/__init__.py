"""Mutables: what can be searched."""

from pss_razor.models.mutables.prefix_channel_container import PrefixChannelContainer
from pss_razor.models.mutables.prefix_mutable_channel import PrefixMutableChannel

__all__ = ["PrefixChannelContainer", "PrefixMutableChannel"]
