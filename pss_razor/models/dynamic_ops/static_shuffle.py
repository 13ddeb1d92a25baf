"""MMRazor's shuffle blocks as networks of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmrazor.models.architectures.ops.shufflenet_series import ShuffleBlock, ShuffleXception


class StaticShuffle(nn.Module):
    """A shuffle block (ShuffleNetV2, arXiv 1807.11164, figure 3) that torch.fx can trace.

    MMRazor's block reads channel counts off its input; this one takes them from the block.

    Args:
        block: The block; its branches are shared.
    """

    def __init__(self, block: ShuffleBlock | ShuffleXception) -> None:
        super().__init__()
        self.half_in = block.in_channels // 2
        self.half_out = block.out_channels // 2
        self.branch1 = block.branch1 if block.stride > 1 else None
        self.branch2 = block.branch2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), C the channels of the block."""
        left = x[:, : self.half_in] if self.branch1 is None else self.branch1(x)
        right = self.branch2(x[:, self.half_in :] if self.branch1 is None else x)
        out = torch.cat((left, right), dim=1)
        out = out.reshape(out.size(0), 2, self.half_out, out.size(2), out.size(3))
        return out.transpose(1, 2).flatten(1, 2)


# An export makes ops static by this method, which MMRazor defines for its dynamic ops only.
for _block in (ShuffleBlock, ShuffleXception):
    _block.to_static_op = lambda self: StaticShuffle(self)
