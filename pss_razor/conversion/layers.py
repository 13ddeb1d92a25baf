"""Layers that use a part of their weights: the first channels of each group that a tensor has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.conversion.groups import Axis, ChannelGroup
from pss_razor.slices import dense, part_of, prefix_view

Widths = Mapping[ChannelGroup, int]
Range = tuple[int, int]
# More runs than this are looked at by position.
_MOST_RUNS = 32
# More ranges than this are gathered by an index.
_MOST_RANGES = 8


class ActiveChannels:
    """Which positions of a channel axis are active: the first units of every group, as few ranges as they make.

    Args:
        axis: How the channel axis is made up.
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.runs = axis.runs
        self.full = len(axis.owner)
        self.ranges: list[Range] = [(0, self.full)]
        self.count = self.full
        self._index: Tensor | None = None

    def update(self, widths: Widths) -> None:
        """Take over the active widths of all groups."""
        ranges = self._join(widths) if len(self.runs) <= _MOST_RUNS else self._search(widths)
        if ranges != self.ranges:
            self.ranges, self._index = ranges, None
            self.count = sum(length for _, length in ranges)

    def _join(self, widths: Widths) -> list[Range]:
        """The active ranges, run by run."""
        ranges: list[Range] = []
        start = 0
        for run in self.runs:
            length = run.active(widths[run.group])
            if ranges and sum(ranges[-1]) == start:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
            else:
                ranges.append((start, length))
            start += run.size
        return [(first, length) for first, length in ranges if length]

    def _search(self, widths: Widths) -> list[Range]:
        """The same, position by position, which is faster for many runs."""
        units = np.array([widths[group] // group.unit for group in self.axis.groups])
        positions = np.flatnonzero(self.axis.unit < units[self.axis.owner])
        ends = np.flatnonzero(np.diff(positions, append=-1) != 1)
        starts = np.r_[0, ends[:-1] + 1]
        return list(zip(positions[starts].tolist(), (ends - starts + 1).tolist(), strict=True))

    def index(self, device: torch.device) -> Tensor:
        """Active positions, ascending."""
        if self._index is None or self._index.device != device:
            self._index = torch.cat([torch.arange(start, start + n) for start, n in self.ranges]).to(device)
        return self._index

    def take(self, tensor: Tensor, axis: int) -> Tensor:
        """The active part of a tensor: itself, a view, or, of several ranges, a copy."""
        if self.count == self.full:
            return tensor
        if len(self.ranges) == 1:
            return self._range(tensor, axis, *self.ranges[0])
        if len(self.ranges) > _MOST_RANGES:
            return tensor.index_select(axis, self.index(tensor.device))
        return torch.cat([self._range(tensor, axis, start, length) for start, length in self.ranges], axis)

    @staticmethod
    def _range(tensor: Tensor, axis: int, start: int, length: int) -> Tensor:
        if start == 0:
            return prefix_view(tensor, *tensor.shape[:axis], length)
        return part_of(tensor, lambda whole: whole.narrow(axis, start, length))

    def put(self, tensor: Tensor, part: Tensor) -> None:
        """Write what :meth:`take` returned for axis 0 back into the tensor, without gradient."""
        begin = 0
        for start, length in self.ranges:
            tensor[start : start + length] = part[begin : begin + length]
            begin += length


class ComputedConv2d(nn.Conv2d):
    """A conv whose weight is computed of its parameters: standardised, say.

    Attributes:
        compute: Returns the weight, called with the parameters of these names.
        names: ``weight`` among them.
    """

    compute: Callable[..., Tensor]
    names: tuple[str, ...]

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight."""
        return self.compute(*self.raw)

    @property
    def raw(self) -> list[Tensor]:
        """What it is computed of."""
        return [self._parameters[name] for name in self.names]  # type: ignore[misc]


class BiasedLinear(nn.Linear):
    """A linear layer whose bias is computed elsewhere."""

    def forward(self, input: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        """Of (…, C)."""
        return F.linear(input, self.weight, bias)


class PartialLayer(nn.Module):
    """A layer of torch of which a part is active. It is made of one by :meth:`become`.

    Attributes:
        inputs: Channels of its input.
        outputs: Channels of its output.
        static_class: The class that the layer had.
    """

    inputs: ActiveChannels
    outputs: ActiveChannels
    static_class: type[nn.Module]

    @classmethod
    def become(cls, layer: nn.Module, inputs: ActiveChannels, outputs: ActiveChannels) -> Any:
        """Give a layer this class: settings, tensors and hooks stay what they are."""
        own: Any = layer
        own.static_class = type(layer)
        own.inputs, own.outputs = inputs, outputs
        own.__class__ = cls
        return own

    def update(self, widths: Widths) -> None:
        """Take over the active widths of all groups."""
        self.inputs.update(widths)
        self.outputs.update(widths)

    def axes(self) -> list[tuple[Tensor, int, Axis]]:
        """Each tensor and axis that is made up of groups, for sorting their channels."""
        return [(tensor, 0, self.outputs.axis) for tensor in self._stored() if tensor is not None]

    def to_static_op(self) -> nn.Module:
        """The active part as a layer of torch with tensors of its own."""
        raise NotImplementedError

    def _per_channel(self) -> list[Any]:
        own: Any = self
        return [own.weight, own.bias]

    def _stored(self) -> list[Any]:
        """The tensors that :meth:`_per_channel` is computed of."""
        return self._per_channel()

    def _active(self) -> list[Any]:
        """The active parts of :meth:`_per_channel`."""
        return [None if tensor is None else self.outputs.take(tensor, 0) for tensor in self._per_channel()]

    def _fill(self, layer: nn.Module, **parts: Tensor | None) -> nn.Module:
        """Copy tensors into a new layer."""
        source = next((tensor for tensor in [*self.parameters(), *self.buffers()]), None)
        if source is not None:
            layer.to(source.device, source.dtype)
        with torch.no_grad():
            for name, part in parts.items():
                if part is not None:
                    getattr(layer, name).copy_(part)
        for name, child in self.named_children():  # timm's norms have their activation inside
            layer.add_module(name, child)
        return layer.train(self.training)


class PartialConv2d(PartialLayer, nn.Conv2d):
    """A conv, its groups with fewer channels each."""

    def _parts(self) -> tuple[Tensor, Tensor | None, int]:
        """Weight, bias and groups."""
        weight, bias = self._active()
        return self.inputs.take(weight, 1), bias, self.groups

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W), C the active channels."""
        weight, bias, groups = self._parts()
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            return F.conv2d(input, dense(weight), bias, self.stride, 0, self.dilation, groups)
        return F.conv2d(input, dense(weight), bias, self.stride, self.padding, self.dilation, groups)

    def axes(self) -> list[tuple[Tensor, int, Axis]]:
        """See :meth:`PartialLayer.axes`."""
        return [*super().axes(), (self._parameters["weight"], 1, self.inputs.axis)]  # type: ignore[list-item]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias, groups = self._parts()
        conv = nn.Conv2d(
            weight.shape[1] * groups, len(weight), self.kernel_size, self.stride, self.padding,  # type: ignore[arg-type]
            self.dilation, groups, bias is not None, self.padding_mode,  # type: ignore[arg-type]
        )  # fmt: skip
        return self._fill(conv, weight=weight, bias=bias)


class PartialGroupedConv2d(PartialConv2d):
    """A depthwise or grouped conv of which whole groups are active."""

    def _parts(self) -> tuple[Tensor, Tensor | None, int]:
        weight, bias = self._active()
        return weight, bias, self.inputs.count * self.groups // self.inputs.full

    def axes(self) -> list[tuple[Tensor, int, Axis]]:
        """See :meth:`PartialLayer.axes`."""
        return PartialLayer.axes(self)


class PartialComputedConv2d(PartialConv2d, ComputedConv2d):
    """A conv whose weight is computed, see :class:`PartialConv2d`; its static layer has the weight."""

    def _stored(self) -> list[Any]:
        own = [tensor for tensor in self.raw if len(tensor) == self.outputs.full]
        return [*own, self.bias]


class PartialComputedGroupedConv2d(PartialGroupedConv2d, PartialComputedConv2d):
    """A grouped conv whose weight is computed, see :class:`PartialGroupedConv2d`."""


class PartialLinear(PartialLayer, nn.Linear):
    """A linear layer, on the last axis."""

    def _parts(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = self._active()
        return self.inputs.take(weight, 1), bias

    def forward(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """Of (…, C), C the active channels, with a bias from elsewhere if it is a :class:`BiasedLinear`."""
        weight, own_bias = self._parts()
        return F.linear(input, weight, own_bias if bias is None else bias)

    def axes(self) -> list[tuple[Tensor, int, Axis]]:
        """See :meth:`PartialLayer.axes`."""
        return [*super().axes(), (self.weight, 1, self.inputs.axis)]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias = self._parts()
        linear: nn.Module = self.static_class(self.inputs.count, self.outputs.count, bias is not None)
        return self._fill(linear, weight=weight, bias=bias)


class PartialBatchNorm(PartialLayer, _BatchNorm):
    """Batch norm; running statistics of the active channels are updated in place."""

    def _per_channel(self) -> list[Any]:
        return [self.running_mean, self.running_var, self.weight, self.bias]

    def get_dynamic_params(self) -> tuple[Any, ...]:
        """Running mean, running variance, weight and bias of the active channels; views of a prefix, else copies."""
        return tuple(self._active())

    def set_statistics(self, mean: Tensor, var: Tensor) -> None:
        """Write running mean and variance of the active channels."""
        assert self.running_mean is not None and self.running_var is not None
        self.outputs.put(self.running_mean, mean)
        self.outputs.put(self.running_var, var)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, …), C the active channels; torch's own rules for training, momentum and statistics."""
        mean, var, weight, bias = self._active()
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # cumulative average
                factor = 1.0 / float(self.num_batches_tracked)
        use_batch = self.training or mean is None
        if use_batch and not self.track_running_stats:
            mean = var = None
        output = F.batch_norm(input, mean, var, weight, bias, use_batch, factor, self.eps)
        if self.training and mean is not None and len(self.outputs.ranges) > 1:
            self.set_statistics(mean, var)
        return output

    def _check_input_dim(self, input: Tensor) -> None:
        """Of all numbers of axes."""

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        mean, var, weight, bias = self._active()
        make: Any = self.static_class
        norm = make(self.outputs.count, self.eps, self.momentum, self.affine, self.track_running_stats)
        tracked = self.num_batches_tracked if self.track_running_stats else None
        return self._fill(
            norm, running_mean=mean, running_var=var, weight=weight, bias=bias, num_batches_tracked=tracked
        )


class PartialLayerNorm(PartialLayer, nn.LayerNorm):
    """Layer norm over the channels, the last axis."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (…, C), C the active channels."""
        weight, bias = self._active()
        return F.layer_norm(input, (self.outputs.count,), weight, bias, self.eps)

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias = self._active()
        norm = nn.LayerNorm(
            self.outputs.count, eps=self.eps, elementwise_affine=weight is not None, bias=bias is not None
        )
        return self._fill(norm, weight=weight, bias=bias)


class PartialGroupNorm(PartialLayer, nn.GroupNorm):
    """Group norm with whole groups of channels active."""

    @property
    def active_groups(self) -> int:
        """Groups that are active."""
        return max(self.outputs.count * self.num_groups // self.outputs.full, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, …), C the active channels."""
        weight, bias = self._active()
        return F.group_norm(input, self.active_groups, weight, bias, self.eps)

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias = self._active()
        norm = nn.GroupNorm(self.active_groups, self.outputs.count, self.eps, weight is not None)
        return self._fill(norm, weight=weight, bias=bias)


class ResidualBlock(nn.Module):
    """A block ``x + f(x)`` that can be skipped.

    Args:
        body: Computes it, of one tensor; its children become this module's, by the same names.
    """

    body: Any

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        for name, child in body.named_children():
            self.add_module(name, child)
        self.__dict__["body"] = body  # not a submodule, so that names stay
        self.skipped = False

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, or its input."""
        return x if self.skipped else self.body(x)
