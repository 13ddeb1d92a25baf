"""Dynamic ops that slice their tensors by prefix: views instead of MMRazor's boolean masks, which copy."""

from pss_razor.models.dynamic_ops.sliced_batch_norm2d import SlicedBatchNorm2d
from pss_razor.models.dynamic_ops.sliced_conv2d import SlicedConv2d
from pss_razor.models.dynamic_ops.sliced_linear import SlicedLinear
from pss_razor.models.dynamic_ops.static_shuffle import StaticShuffle

__all__ = ["SlicedBatchNorm2d", "SlicedConv2d", "SlicedLinear", "StaticShuffle"]
