"""Mixed precision on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from pss_razor.registry import OPTIM_WRAPPERS

from mmengine.optim import OptimWrapper


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """bfloat16 autocast on the CPU, which mmengine's ``AmpOptimWrapper`` refuses.

    bfloat16 has float32's range, so that gradients need no scaling. ``pss-train --amp`` takes this wrapper where
    there is no GPU.
    """

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run a forward pass in mixed precision."""
        with super().optim_context(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield
