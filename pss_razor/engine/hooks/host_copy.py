"""Values of a device on their way to the host."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor that is asked for at once and read later.

    Reading waits until this copy has arrived. To read the tensor itself would wait for all that the device has been
    told since, however old the tensor is: a copy takes its place at the end of the queue.

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
