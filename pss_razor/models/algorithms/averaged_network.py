"""A network whose weights are the moving average of another's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedNetwork(nn.Module):
    """A copy of a network, of which :meth:`update` makes an exponential moving average.

    BN normalises by the batch, as in the network that is trained: averaged running statistics would fit neither the
    averaged weights nor, in a supernet, any one subnet. Nothing else is in training mode, so no dropout.

    ``mmengine.model.ExponentialMovingAverage`` reads its count off the device in every step, for which a GPU is waited;
    this one reads it once. Its state goes into checkpoints, and moves with the module that it is part of.

    Args:
        network: Copied as it is: of a supernet, with the subnet that is active.
        momentum: Weight of the new values, in (0, 1].

    Attributes:
        updates: How many there were; the first copies the weights.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, momentum: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        for norm in self.network.modules():
            if isinstance(norm, _BatchNorm):
                norm.track_running_stats = False
                norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._has_weights = False
        self._average = get_ema_multi_avg_fn(1 - momentum)
        self.eval()

    def train(self, mode: bool = True) -> AveragedNetwork:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Average the weights of ``network``, which is built like the one that was copied, into these."""
        averages, weights = list(self.network.parameters()), list(network.parameters())
        self._has_weights = self._has_weights or bool(self.updates)
        if self._has_weights:
            self._average(averages, weights, None)
        else:
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)
        self._has_weights = True
        self.updates += 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network."""
        return self.network(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._has_weights = False
