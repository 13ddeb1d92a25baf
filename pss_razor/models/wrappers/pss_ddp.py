"""DDP for algorithms whose step runs several subnets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pss_razor.registry import MODEL_WRAPPERS

from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper


@MODEL_WRAPPERS.register_module()
class PSSDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` that lends its forward to the algorithm's own ``train_step``.

    Gradients are exchanged once a step, in the backward of the last subnet. BN statistics are not broadcast: they are
    recalibrated before every evaluation.

    Args:
        module: The algorithm.
        device_ids: Device of this process; ignored where there is no GPU.
        **kwargs: Of ``DistributedDataParallel``.

    Example:
        ``model_wrapper_cfg=dict(type='mmrazor.PSSDistributedDataParallel')``
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("broadcast_buffers", False)
        super().__init__(module, device_ids=device_ids if torch.cuda.is_available() else None, **kwargs)

    def train_step(self, data: dict | tuple | list, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """See :meth:`pss_razor.models.PSS.train_step`."""
        return self.module.train_step(data, optim_wrapper, forward=self, no_sync=self.no_sync)
