"""DDP that runs on a CPU, too."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pss_razor.registry import MODEL_WRAPPERS

from mmengine.model import MMDistributedDataParallel


@MODEL_WRAPPERS.register_module()
class PortableDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` that works without a GPU, although mmengine's runner passes ``device_ids``.

    BN statistics are not broadcast.

    Args:
        module: The algorithm.
        device_ids: Device of this process; ignored where there is no GPU.
        **kwargs: Of ``DistributedDataParallel``; ``find_unused_parameters=True`` where a step leaves parameters out.

    Example:
        ``model_wrapper_cfg=dict(type='mmrazor.PortableDistributedDataParallel', find_unused_parameters=True)``
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("broadcast_buffers", False)
        super().__init__(module, device_ids=device_ids if torch.cuda.is_available() else None, **kwargs)
