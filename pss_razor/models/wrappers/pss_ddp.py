"""DDP for algorithms whose step runs several subnets."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pss_razor.models.wrappers.portable_ddp import PortableDistributedDataParallel
from pss_razor.registry import MODEL_WRAPPERS

from mmengine.optim import OptimWrapper


@MODEL_WRAPPERS.register_module()
class PSSDistributedDataParallel(PortableDistributedDataParallel):
    """DDP that lends its forward to the algorithm's own ``train_step``.

    Gradients are exchanged once a step, in the backward of the last subnet. BN statistics are not broadcast: they are
    recalibrated before every evaluation. Where subnets leave parameters out, of other ops or of skipped blocks, DDP is
    told so; gradients that only an earlier subnet of the step has made are exchanged too.

    Args:
        module: The algorithm.
        device_ids: Device of this process; ignored where there is no GPU.
        **kwargs: Of ``DistributedDataParallel``; ``find_unused_parameters`` is whether subnets leave parameters out.

    Example:
        ``model_wrapper_cfg=dict(type='mmrazor.PSSDistributedDataParallel')``
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("find_unused_parameters", getattr(module, "leaves_parameters_out", False))
        super().__init__(module, device_ids, **kwargs)

    def train_step(self, data: dict | tuple | list, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """See :meth:`pss_razor.models.PSS.train_step`."""
        return self.module.train_step(data, optim_wrapper, forward=self, no_sync=self.no_sync)
