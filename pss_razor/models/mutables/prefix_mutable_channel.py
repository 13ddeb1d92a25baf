"""A channel mutable that keeps a number instead of a mask."""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch

from pss_razor.models.mutables.scaled_channel import ScaledChannel
from pss_razor.registry import MODELS

from mmrazor.models.mutables import OneShotMutableChannel


@MODELS.register_module()
class PrefixMutableChannel(OneShotMutableChannel):
    """The first ``current_choice`` channels are active.

    MMRazor's ``OneShotMutableChannel`` stores a mask and counts it at every access. Here the choice is an integer, by
    which a forward pass slices without reading a tensor. The mask is made only on request.

    Args:
        num_channels: Channels of the full network.
        choices: Width in channels -> probability in the search space's own distribution; the largest width must be
            ``num_channels``.
        alias: Name of the search group.
    """

    def __init__(self, num_channels: int, choices: Mapping[int, float], alias: str) -> None:
        if max(choices) != num_channels:
            raise ValueError(f"{alias}: the largest width {max(choices)} must be the full network's {num_channels}")
        self._active = num_channels
        ordered = dict(sorted(choices.items()))
        self.probabilities = tuple(ordered.values())
        super().__init__(num_channels, list(ordered), choice_mode="number", alias=alias)
        del self.mask

    @property
    def current_choice(self) -> int:
        """Number of active channels."""
        return self._active

    @current_choice.setter
    def current_choice(self, choice: int) -> None:
        if choice not in self.candidate_choices:
            raise ValueError(f"{self.alias} = {choice} is not a width of the search space {self.candidate_choices}")
        self.__dict__["_active"] = int(choice)  # nn.Module's setattr would take longer than all the rest

    @property
    def max_choice(self) -> int:
        """The largest width."""
        return self.candidate_choices[-1]

    @property
    def min_choice(self) -> int:
        """The smallest width."""
        return self.candidate_choices[0]

    def sample_choice(self) -> int:
        """A width drawn from the search space's own distribution, with Python's global generator as in MMRazor."""
        return random.choices(self.candidate_choices, self.probabilities)[0]

    def __mul__(self, ratio: int) -> ScaledChannel:
        """A width of ``ratio`` times this one."""
        return ScaledChannel(self, numerator=ratio)

    def __floordiv__(self, ratio: int) -> ScaledChannel:
        """A width of this one over ``ratio``."""
        return ScaledChannel(self, denominator=ratio)

    @property
    def activated_channels(self) -> int:
        """Number of active channels."""
        return self._active

    @property
    def current_mask(self) -> torch.Tensor:
        """Boolean mask (num_channels,), for the parts of MMRazor that look at masks."""
        return torch.arange(self.num_channels) < self._active
