"""Layers that use a part of their weights: the first channels of each segment of a tensor."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.conversion.groups import ChannelGroup, Segment

Widths = Mapping[ChannelGroup, int]
Range = tuple[int, int]


class ActiveChannels:
    """Which positions of a channel axis are active: a prefix of every segment, as few ranges as they make.

    Args:
        segments: Of the axis.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self.full = sum(segment.size for segment in self.segments)
        self.ranges: list[Range] = [(0, self.full)]
        self.count = self.full

    def update(self, widths: Widths) -> None:
        """Take over the active widths of all groups."""
        ranges: list[Range] = []
        start = 0
        for segment in self.segments:
            length = widths[segment.group.root] * segment.repeat
            if ranges and sum(ranges[-1]) == start:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
            else:
                ranges.append((start, length))
            start += segment.size
        self.ranges = [(first, length) for first, length in ranges if length]
        self.count = sum(length for _, length in self.ranges)

    def take(self, tensor: Tensor, axis: int) -> Tensor:
        """The active part of a tensor: itself, a view, or, of several ranges, a copy."""
        if self.count == self.full:
            return tensor
        if len(self.ranges) == 1:
            start, length = self.ranges[0]
            if start == 0:  # a view whose gradient is one node with the strides of the tensor
                shape = [*tensor.shape]
                shape[axis] = length
                return tensor.as_strided(shape, tensor.stride(), tensor.storage_offset())
            return tensor.narrow(axis, start, length)
        return torch.cat([tensor.narrow(axis, start, length) for start, length in self.ranges], axis)

    def put(self, tensor: Tensor, part: Tensor) -> None:
        """Write what :meth:`take` returned for axis 0 back into the tensor, without gradient."""
        begin = 0
        for start, length in self.ranges:
            tensor[start : start + length] = part[begin : begin + length]
            begin += length


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

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """Each tensor and axis that is made up of groups, for sorting their channels."""
        return [(tensor, 0, self.outputs.segments) for tensor in self._per_channel() if tensor is not None]

    def to_static_op(self) -> nn.Module:
        """The active part as a layer of torch with tensors of its own."""
        raise NotImplementedError

    def _per_channel(self) -> list[Any]:
        own: Any = self
        return [own.weight, own.bias]

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
    """A conv: ordinary, depthwise, or grouped with whole groups active."""

    def _parts(self) -> tuple[Tensor, Tensor | None, int]:
        weight, bias = self._active()
        if self.groups > 1:
            return weight, bias, self.inputs.count * self.groups // self.inputs.full
        return self.inputs.take(weight, 1), bias, 1

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W), C the active channels."""
        weight, bias, groups = self._parts()
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            return F.conv2d(input, weight, bias, self.stride, 0, self.dilation, groups)
        return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, groups)

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """See :meth:`PartialLayer.axes`."""
        inputs = [(self.weight, 1, self.inputs.segments)] if self.groups == 1 else []
        return [*super().axes(), *inputs]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias, groups = self._parts()
        conv = nn.Conv2d(
            self.inputs.count, self.outputs.count, self.kernel_size, self.stride, self.padding,  # type: ignore[arg-type]
            self.dilation, groups, bias is not None, self.padding_mode,  # type: ignore[arg-type]
        )  # fmt: skip
        return self._fill(conv, weight=weight, bias=bias)


class PartialLinear(PartialLayer, nn.Linear):
    """A linear layer, on the last axis."""

    def _parts(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = self._active()
        return self.inputs.take(weight, 1), bias

    def forward(self, input: Tensor) -> Tensor:
        """Of (…, C), C the active channels."""
        return F.linear(input, *self._parts())

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """See :meth:`PartialLayer.axes`."""
        return [*super().axes(), (self.weight, 1, self.inputs.segments)]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias = self._parts()
        linear = nn.Linear(self.inputs.count, self.outputs.count, bias is not None)
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


class ChannelsFirstNorm(nn.LayerNorm):
    """Layer norm over the second axis of (N, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PartialLayerNorm(PartialLayer, nn.LayerNorm):
    """Layer norm over the channels, the last axis."""

    static_norm: type[nn.LayerNorm] = nn.LayerNorm

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (…, C), C the active channels."""
        weight, bias = self._active()
        return F.layer_norm(input, (self.outputs.count,), weight, bias, self.eps)

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias = self._active()
        norm = self.static_norm(
            self.outputs.count, eps=self.eps, elementwise_affine=weight is not None, bias=bias is not None
        )
        return self._fill(norm, weight=weight, bias=bias)


class PartialChannelsFirstNorm(PartialLayerNorm):
    """Layer norm over the second axis (ConvNeXt)."""

    static_norm = ChannelsFirstNorm

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W), C the active channels."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PartialGroupNorm(PartialLayer, nn.GroupNorm):
    """Group norm with whole groups of channels active."""

    @property
    def active_groups(self) -> int:
        """Groups that are active."""
        return self.outputs.count * self.num_groups // self.outputs.full

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, …), C the active channels."""
        weight, bias = self._active()
        return F.group_norm(input, self.active_groups, weight, bias, self.eps)

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias = self._active()
        norm = nn.GroupNorm(self.active_groups, self.outputs.count, self.eps, weight is not None)
        return self._fill(norm, weight=weight, bias=bias)


class PartialParameter(nn.Module):
    """A parameter that the network uses directly, such as a layer scale or a class token.

    Args:
        value: The parameter.
        axis: Its channel axis.
        channels: Channels of this axis.
    """

    def __init__(self, value: Tensor, axis: int, channels: ActiveChannels) -> None:
        super().__init__()
        if isinstance(value, nn.Parameter):
            self.value = value
        else:
            self.register_buffer("value", value)
        self.axis = axis
        self.outputs = channels

    def update(self, widths: Widths) -> None:
        """Take over the active widths of all groups."""
        self.outputs.update(widths)

    def forward(self) -> Tensor:
        """The active part."""
        return self.outputs.take(self.value, self.axis)

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """See :meth:`PartialLayer.axes`."""
        return [(self.value, self.axis, self.outputs.segments)]

    def to_static_op(self) -> nn.Module:
        """The active part as a module of its own."""
        part = self.forward().detach().clone()
        static = StaticParameter(nn.Parameter(part) if isinstance(self.value, nn.Parameter) else part)
        return static.train(self.training)


class StaticParameter(nn.Module):
    """A parameter as a module, for the graph that calls one."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        if isinstance(value, nn.Parameter):
            self.value = value
        else:
            self.register_buffer("value", value)

    def forward(self) -> Tensor:
        """The parameter."""
        return self.value


class PartialSplit(nn.Module):
    """A tensor cut at the borders of segments.

    Args:
        axis: The channel axis.
        parts: Channels of each part.
    """

    def __init__(self, axis: int, parts: Sequence[ActiveChannels]) -> None:
        super().__init__()
        self.axis = axis
        self.parts = list(parts)

    def update(self, widths: Widths) -> None:
        """Take over the active widths of all groups."""
        for part in self.parts:
            part.update(widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The parts."""
        return torch.split(x, [part.count for part in self.parts], self.axis)

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """None: nothing is stored."""
        return []

    def to_static_op(self) -> nn.Module:
        """The cut at fixed places."""
        return StaticSplit(self.axis, [part.count for part in self.parts])


class StaticSplit(nn.Module):
    """A tensor cut into parts of fixed sizes."""

    def __init__(self, axis: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.axis = axis
        self.sizes = list(sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The parts."""
        ends = list(itertools.accumulate(self.sizes))
        whole = (slice(None),) * self.axis
        cuts = [(*whole, slice(end - size, end)) for size, end in zip(self.sizes, ends, strict=True)]
        return tuple(x[cut] for cut in cuts)


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
