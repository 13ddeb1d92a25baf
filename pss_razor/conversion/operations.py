"""What a network does besides its layers, on a part of the channels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pss_razor.conversion.groups import Axis
from pss_razor.conversion.layers import ActiveChannels, Widths
from pss_razor.static.static_parameter import StaticParameter


class PartialOperation(nn.Module):
    """An operation on one axis of a tensor.

    Args:
        axis: The channel axis.
        channels: All channels that it depends on.
    """

    def __init__(self, axis: int, *channels: ActiveChannels) -> None:
        super().__init__()
        self.axis = axis
        self.channels = channels

    def update(self, widths: Widths) -> None:
        """Take over the active widths of all groups."""
        for own in self.channels:
            own.update(widths)

    def axes(self) -> list[tuple[Tensor, int, Axis]]:
        """See ``PartialLayer.axes``."""
        return []

    def to_static_op(self) -> nn.Module:
        """The operation on the active channels alone."""
        raise NotImplementedError


class PartialParameter(PartialOperation):
    """A parameter that the network uses directly, such as a layer scale or a class token.

    Args:
        value: The parameter.
        axis: Its channel axis.
        channels: Channels of this axis.
    """

    value: Tensor

    def __init__(self, value: Tensor, axis: int, channels: ActiveChannels) -> None:
        super().__init__(axis, channels)
        self.outputs = channels
        if isinstance(value, nn.Parameter):
            self.value = value
        else:
            self.register_buffer("value", value)

    def forward(self) -> Tensor:
        """The active part."""
        return self.outputs.take(self.value, self.axis)

    def axes(self) -> list[tuple[Tensor, int, Axis]]:
        """See ``PartialLayer.axes``."""
        return [(self.value, self.axis, self.outputs.axis)]

    def to_static_op(self) -> nn.Module:
        """The active part as a module of its own."""
        part = self.forward().detach()
        static = StaticParameter.of(nn.Parameter(part) if isinstance(self.value, nn.Parameter) else part)
        return static.train(self.training)


class PartialIndex(PartialOperation):
    """Active positions, to cut what the network computes of parameters alone: a bias of attention for every head, say.

    Args:
        channels: Channels of the axis that is cut.
    """

    order: Tensor

    def __init__(self, channels: ActiveChannels) -> None:
        super().__init__(0, channels)
        # Sorting the channels changes this order, since what is computed cannot be sorted.
        self.register_buffer("order", torch.arange(channels.full), persistent=False)
        self.outputs = channels

    def forward(self) -> Tensor:
        """The positions, int64."""
        return self.outputs.take(self.order, 0)

    def axes(self) -> list[tuple[Tensor, int, Axis]]:
        """See ``PartialLayer.axes``."""
        return [(self.order, 0, self.outputs.axis)]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialOperation.to_static_op`."""
        return StaticIndex(self.forward().clone())


class StaticIndex(nn.Module):
    """Fixed positions.

    Args:
        index: The positions.
    """

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index, persistent=False)

    def forward(self) -> Tensor:
        """The positions."""
        return self.index


class StaticSelection(nn.Module):
    """Fixed positions of an axis.

    Args:
        axis: The axis.
        index: The positions.
    """

    index: Tensor

    def __init__(self, axis: int, index: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The positions, in the order of the index."""
        return x.index_select(self.axis, self.index)


class PartialShuffle(PartialOperation):
    """Channels in another order.

    Args:
        axis: The channel axis.
        inputs: Channels before.
        outputs: Channels after.
        order: Of each position after, the position before.
    """

    order: Tensor

    def __init__(self, axis: int, inputs: ActiveChannels, outputs: ActiveChannels, order: np.ndarray) -> None:
        super().__init__(axis, inputs, outputs)
        self.inputs, self.outputs = inputs, outputs
        self.register_buffer("order", torch.from_numpy(order.astype(np.int64)), persistent=False)

    def _index(self) -> Tensor:
        """Of each active position after, the place of its channel among the active ones before."""
        device = self.order.device
        places = torch.zeros(self.inputs.full, dtype=torch.int64, device=device)
        places[self.inputs.index(device)] = torch.arange(self.inputs.count, device=device)
        return places[self.order[self.outputs.index(device)]]

    def forward(self, x: Tensor) -> Tensor:
        """The active channels in the other order."""
        return x.index_select(self.axis, self._index())

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialOperation.to_static_op`."""
        return StaticSelection(self.axis, self._index())


class PartialReshape(PartialOperation):
    """A reshape to numbers, of which one is how many channels are active.

    Args:
        axis: The channel axis of what is returned.
        channels: Channels of this axis.
    """

    def __init__(self, axis: int, channels: ActiveChannels) -> None:
        super().__init__(axis, channels)
        self.outputs = channels

    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Reshape to the sizes, the channels' replaced."""
        return x.reshape(*sizes[: self.axis], self.outputs.count, *sizes[self.axis + 1 :])

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialOperation.to_static_op`."""
        return StaticReshape(self.axis, self.outputs.count)


class StaticReshape(nn.Module):
    """A reshape, of whose sizes one is given.

    Args:
        axis: Whose.
        size: The size.
    """

    def __init__(self, axis: int, size: int) -> None:
        super().__init__()
        self.axis = axis
        self.size = size

    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Reshape."""
        return x.reshape(*sizes[: self.axis], self.size, *sizes[self.axis + 1 :])


class PartialSplit(PartialOperation):
    """A tensor cut into parts.

    Args:
        axis: The channel axis.
        parts: Channels of each part.
        index: The part that is returned; None returns all.
    """

    def __init__(self, axis: int, parts: Sequence[ActiveChannels], index: int | None = None) -> None:
        super().__init__(axis, *parts)
        self.index = index

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The parts, or the part."""
        parts = torch.split(x, [part.count for part in self.channels], self.axis)
        return parts if self.index is None else parts[self.index]

    def to_static_op(self) -> nn.Module:
        """See :meth:`PartialOperation.to_static_op`."""
        return StaticSplit(self.axis, [part.count for part in self.channels], self.index)


class StaticSplit(nn.Module):
    """A tensor cut into parts of fixed sizes.

    Args:
        axis: Along which.
        sizes: Of the parts.
        index: The part that is returned; None returns all.
    """

    def __init__(self, axis: int, sizes: Sequence[int], index: int | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.sizes = list(sizes)
        self.index = index

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The parts, or the part."""
        ends = list(itertools.accumulate(self.sizes))
        whole = (slice(None),) * self.axis
        cuts = [(*whole, slice(end - size, end)) for size, end in zip(self.sizes, ends, strict=True)]
        return tuple(x[cut] for cut in cuts) if self.index is None else x[cuts[self.index]]
