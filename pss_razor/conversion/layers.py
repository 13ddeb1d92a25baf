"""Layers that use a part of their weights: the first channels of each segment of a tensor."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    """A layer with the weights of one of torch, of which a part is active.

    Args:
        layer: The layer; its parameters and buffers become this one's, by the same names.
        inputs: Channels of its input.
        outputs: Channels of its output.
    """

    def __init__(self, layer: nn.Module, inputs: ActiveChannels, outputs: ActiveChannels) -> None:
        super().__init__()
        self._layer = [layer]  # in a list: no submodule, so that names stay
        self._parameters = layer._parameters
        self._buffers = layer._buffers
        self._non_persistent_buffers_set = layer._non_persistent_buffers_set
        self.inputs = inputs
        self.outputs = outputs
        self.train(layer.training)

    @property
    def layer(self) -> Any:
        """The layer of torch, for its settings."""
        return self._layer[0]

    def update(self, widths: Widths) -> None:
        """Take over the active widths of all groups."""
        self.inputs.update(widths)
        self.outputs.update(widths)

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """Each tensor and axis that is made up of groups, for sorting their channels."""
        raise NotImplementedError

    def to_static_op(self) -> nn.Module:
        """The active part as a layer of torch with tensors of its own."""
        raise NotImplementedError

    def _copy(self, layer: nn.Module, parts: Mapping[str, Tensor | None]) -> nn.Module:
        with torch.no_grad():
            for name, part in parts.items():
                if part is not None:
                    getattr(layer, name).copy_(part)
        return layer.train(self.training)

    def _like(self) -> dict[str, Any]:
        tensor = next(iter([*self._parameters.values(), *self._buffers.values()]))
        assert tensor is not None
        return {"device": tensor.device, "dtype": tensor.dtype}

    def __deepcopy__(self, memo: dict[int, Any]) -> PartialLayer:
        layer = copy.deepcopy(self.layer, memo)
        clone = type(self)(layer, copy.deepcopy(self.inputs, memo), copy.deepcopy(self.outputs, memo))
        clone.training = self.training
        return clone


class PartialConv2d(PartialLayer):
    """A conv: ordinary, depthwise, or grouped with whole groups active."""

    def _parts(self) -> tuple[Tensor, Tensor | None, int]:
        layer = self.layer
        weight = self.outputs.take(layer.weight, 0)
        groups = 1
        if layer.groups > 1:
            groups = self.inputs.count * layer.groups // self.inputs.full
        else:
            weight = self.inputs.take(weight, 1)
        return weight, None if layer.bias is None else self.outputs.take(layer.bias, 0), groups

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W), C the active channels."""
        layer = self.layer
        weight, bias, groups = self._parts()
        if layer.padding_mode != "zeros":
            x = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
            return F.conv2d(x, weight, bias, layer.stride, 0, layer.dilation, groups)
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, groups)

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """See :meth:`PartialLayer.axes`."""
        layer = self.layer
        found = [(layer.weight, 0, self.outputs.segments)]
        if layer.groups == 1:
            found.append((layer.weight, 1, self.inputs.segments))
        if layer.bias is not None:
            found.append((layer.bias, 0, self.outputs.segments))
        return found

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        layer = self.layer
        weight, bias, groups = self._parts()
        conv = nn.Conv2d(
            self.inputs.count, self.outputs.count, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            groups, bias is not None, layer.padding_mode, **self._like(),
        )  # fmt: skip
        return self._copy(conv, {"weight": weight, "bias": bias})


class PartialLinear(PartialLayer):
    """A linear layer, on the last axis."""

    def _parts(self) -> tuple[Tensor, Tensor | None]:
        weight = self.inputs.take(self.outputs.take(self.layer.weight, 0), 1)
        return weight, None if self.layer.bias is None else self.outputs.take(self.layer.bias, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Of (…, C), C the active channels."""
        return F.linear(x, *self._parts())

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """See :meth:`PartialLayer.axes`."""
        layer = self.layer
        found = [(layer.weight, 0, self.outputs.segments), (layer.weight, 1, self.inputs.segments)]
        return found if layer.bias is None else [*found, (layer.bias, 0, self.outputs.segments)]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        weight, bias = self._parts()
        linear = nn.Linear(self.inputs.count, self.outputs.count, bias is not None, **self._like())
        return self._copy(linear, {"weight": weight, "bias": bias})


class PartialBatchNorm(PartialLayer):
    """Batch norm; running statistics of the active channels are updated in place."""

    names = ("running_mean", "running_var", "weight", "bias")

    def get_dynamic_params(self) -> tuple[Tensor | None, ...]:
        """Running mean, running variance, weight and bias of the active channels; views of a prefix, else copies."""
        tensors = (getattr(self.layer, name) for name in self.names)
        return tuple(None if tensor is None else self.outputs.take(tensor, 0) for tensor in tensors)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, …), C the active channels; torch's own rules for training, momentum and statistics."""
        layer = self.layer
        mean, var, weight, bias = self.get_dynamic_params()
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and layer.track_running_stats:
            layer.num_batches_tracked.add_(1)
            if self.momentum is None:  # cumulative average
                factor = 1.0 / float(layer.num_batches_tracked)
        use_batch = self.training or mean is None
        if use_batch and not layer.track_running_stats:
            mean = var = None
        x = F.batch_norm(x, mean, var, weight, bias, use_batch, factor, layer.eps)
        if self.training and mean is not None and var is not None and len(self.outputs.ranges) > 1:
            self.outputs.put(layer.running_mean, mean)
            self.outputs.put(layer.running_var, var)
        return x

    @property
    def momentum(self) -> float | None:
        """As torch's; BN calibration sets it."""
        return self.layer.momentum

    @momentum.setter
    def momentum(self, momentum: float | None) -> None:
        self.layer.momentum = momentum

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """See :meth:`PartialLayer.axes`."""
        tensors = (getattr(self.layer, name) for name in self.names)
        return [(tensor, 0, self.outputs.segments) for tensor in tensors if tensor is not None]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        layer = self.layer
        norm = type(layer)(
            self.outputs.count, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, **self._like()
        )
        if layer.track_running_stats:
            norm.num_batches_tracked.copy_(layer.num_batches_tracked)
        return self._copy(norm, dict(zip(self.names, self.get_dynamic_params(), strict=True)))


class PartialLayerNorm(PartialLayer):
    """Layer norm over the channels, the last axis; ``channels_first`` has them at the second (ConvNeXt)."""

    channels_first = False

    def _parts(self) -> tuple[Tensor | None, Tensor | None]:
        layer = self.layer
        return tuple(None if t is None else self.outputs.take(t, 0) for t in (layer.weight, layer.bias))  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (…, C) or, channels first, (N, C, H, W)."""
        if self.channels_first:
            x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, (self.outputs.count,), *self._parts(), self.layer.eps)
        return x.permute(0, 3, 1, 2) if self.channels_first else x

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """See :meth:`PartialLayer.axes`."""
        tensors = (self.layer.weight, self.layer.bias)
        return [(tensor, 0, self.outputs.segments) for tensor in tensors if tensor is not None]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        layer = self.layer
        weight, bias = self._parts()
        like = {} if weight is None else {"device": weight.device, "dtype": weight.dtype}
        norm = type(layer)(
            self.outputs.count, eps=layer.eps, elementwise_affine=weight is not None, bias=bias is not None, **like
        )
        return self._copy(norm, {"weight": weight, "bias": bias})


class PartialChannelsFirstNorm(PartialLayerNorm):
    """Layer norm over the second axis."""

    channels_first = True


class PartialGroupNorm(PartialLayer):
    """Group norm with whole groups of channels active."""

    def _parts(self) -> tuple[int, Tensor | None, Tensor | None]:
        layer = self.layer
        groups = self.outputs.count * layer.num_groups // self.outputs.full
        weight, bias = (None if t is None else self.outputs.take(t, 0) for t in (layer.weight, layer.bias))
        return groups, weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, …), C the active channels."""
        return F.group_norm(x, *self._parts(), self.layer.eps)

    def axes(self) -> list[tuple[Tensor, int, tuple[Segment, ...]]]:
        """See :meth:`PartialLayer.axes`."""
        tensors = (self.layer.weight, self.layer.bias)
        return [(tensor, 0, self.outputs.segments) for tensor in tensors if tensor is not None]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialLayer.to_static_op`."""
        groups, weight, bias = self._parts()
        norm = nn.GroupNorm(groups, self.outputs.count, self.layer.eps, weight is not None, **self._like())
        return self._copy(norm, {"weight": weight, "bias": bias})


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
        return torch.split(x, self.sizes, self.axis)


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
