"""Batch normalisation of the first channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pss_razor.models.dynamic_ops.active_width import active_width
from pss_razor.registry import MODELS
from pss_razor.slices import prefix_view

from mmrazor.models.architectures.dynamic_ops import DynamicBatchNorm2d


@MODELS.register_module()
class SlicedBatchNorm2d(DynamicBatchNorm2d):
    """``DynamicBatchNorm2d`` whose running statistics are updated in place, through a view."""

    def get_dynamic_params(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Views of running mean, running variance, weight and bias for the active channels."""
        width = active_width(self, "num_features", self.num_features)
        tensors = (self.running_mean, self.running_var, self.weight, self.bias)
        if width == self.num_features:
            return tensors
        return tuple(None if tensor is None else prefix_view(tensor, width) for tensor in tensors)  # type: ignore[return-value]

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W), C the active channels; torch's own rules for training, momentum and statistics."""
        self._check_input_dim(input)
        mean, var, weight, bias = self.get_dynamic_params()
        average_factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # cumulative average
                average_factor = 1.0 / float(self.num_batches_tracked)
        use_batch_statistics = self.training or mean is None
        if not use_batch_statistics or self.track_running_stats:
            return F.batch_norm(input, mean, var, weight, bias, use_batch_statistics, average_factor, self.eps)
        return F.batch_norm(input, None, None, weight, bias, True, average_factor, self.eps)

    def to_static_op(self) -> nn.BatchNorm2d:
        """An ``nn.BatchNorm2d`` of the active channels with tensors of its own."""
        width = active_width(self, "num_features", self.num_features)
        norm = nn.BatchNorm2d(width, self.eps, self.momentum, self.affine, self.track_running_stats)
        reference = self.weight if self.affine else self.running_mean
        if reference is not None:
            norm.to(reference.device, reference.dtype)
        with torch.no_grad():
            for name, tensor in norm.state_dict().items():
                source = getattr(self, name)
                tensor.copy_(source[:width] if source.dim() else source)
        return norm
