"""The container between a dynamic op and its channel mutable."""

from __future__ import annotations

from pss_razor.registry import MODELS

from mmrazor.models.mutables import MutableChannelContainer


@MODELS.register_module()
class PrefixChannelContainer(MutableChannelContainer):
    """A container of at most one mutable, whose active channels are a prefix, given by their number."""

    @property
    def activated_channels(self) -> int:
        """Number of active channels, without building a mask."""
        for mutable in self.mutable_channels.values():
            return mutable.current_choice
        return self.num_channels
