"""Values of a device on their way to the host."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor that is started at once and read later.

    Reading waits only until this copy has arrived. Reading the tensor itself would queue a copy behind all the work
    that the device has been given since, and wait for that.

    Args:
        tensor: On any device.
    """

    def __init__(self, tensor: Tensor) -> None:
        # torch pins the memory that a non-blocking copy writes to.
        self._values = tensor.detach().to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def tolist(self) -> list:
        """The values."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values.tolist()
