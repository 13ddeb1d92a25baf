"""How the channels of a network's tensors hang together (DESIGN.md, section 7)."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.conversion.groups import ChannelGroup, Layout, Segment, unite

Shape = tuple[int, ...]
# torch.fx types what a node is called with as a union of everything.
Node = Any

# Modules and functions whose channels are those of their input.
_PASSING_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Upsample,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d,
)  # fmt: skip
# What does nothing in evaluation mode, and has no rule in a static network.
REGULARISER_NAMES = {"StochasticDepth", "DropPath", "DropBlock2d"}
_PASSING_FUNCTIONS = {
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh, F.sigmoid),
    *(F.tanh, F.dropout, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate),
    *(torch.relu, torch.sigmoid, torch.tanh, torch.clamp, torch.abs, torch.sqrt, torch.exp, operator.neg),
    *(torch.max_pool2d, torch.adaptive_avg_pool1d),
}
_PASSING_METHODS = {
    *("contiguous", "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "clamp", "clamp_", "float", "half", "clone"),
    *("to", "type_as", "detach", "hardtanh_"),
}
_ELEMENTWISE_FUNCTIONS = {
    *(operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, operator.truediv, operator.isub),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum),
}
_ELEMENTWISE_METHODS = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_"}


@dataclass(frozen=True)
class Use:
    """A part of the graph that works on channels.

    Args:
        node: The node.
        kind: ``"conv"``, ``"depthwise"``, ``"grouped"``, ``"linear"``, ``"batch_norm"``, ``"layer_norm"``,
            ``"layer_norm_first"``, ``"group_norm"``, ``"parameter"`` or ``"split"``.
        inputs: Of its input.
        outputs: Of its output, or of the parameter.
        axis: Of a parameter or split, the channel axis.
        parts: Of a split.
    """

    node: Node
    kind: str
    inputs: tuple[Segment, ...]
    outputs: tuple[Segment, ...]
    axis: int = 0
    parts: tuple[tuple[Segment, ...], ...] = ()


@dataclass
class Propagation:
    """What is known of a graph's channels.

    Args:
        layouts: Node -> its channels; a tuple of them for a split. None where nothing is known.
        uses: Parts that work on channels, in running order.
        groups: All groups.
    """

    layouts: dict[Node, Any] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    groups: list[ChannelGroup] = field(default_factory=list)


class Propagator:
    """Follows channels through a graph. An operation without a rule freezes what it touches.

    Args:
        network: The graph.
        shapes: Node name -> shape of its value.
    """

    def __init__(self, network: fx.GraphModule, shapes: dict[str, Shape | None]) -> None:
        self.network = network
        self.shapes = shapes
        self.modules = dict(network.named_modules())
        self.result = Propagation()
        targets = [node.target for node in network.graph.nodes if node.op == "call_module"]
        self.shared = {target for target in targets if targets.count(target) > 1}

    def run(self) -> Propagation:
        """Propagate."""
        for node in self.network.graph.nodes:
            self.result.layouts[node] = self._visit(node)
        return self.result

    # What a node does.

    def _visit(self, node: Node) -> Any:
        match node.op:
            case "placeholder":
                shape = self.shapes[node.name]
                if shape is None or len(shape) < 2:
                    return None
                group = self._new_group(shape[1], node.name)
                group.freeze("the images' channels")
                return Layout(1, (Segment(group),))
            case "output":
                self._freeze(node.args, "the network's outputs")
                return None
            case "get_attr":
                return None  # a parameter follows what it meets
            case "call_module":
                return self._visit_module(node, self.modules[str(node.target)])
            case "call_function":
                return self._visit_function(node)
            case "call_method":
                return self._visit_method(node)
        return self._opaque(node)

    def _visit_module(self, node: Node, module: nn.Module) -> Any:
        layout = self._layout(node.args[0] if node.args else None)
        weighted = any(True for _ in module.parameters())
        if node.target in self.shared and weighted:
            return self._opaque(node, "it runs more than once")
        if isinstance(module, _PASSING_MODULES) or type(module).__name__ in REGULARISER_NAMES:
            return layout
        if type(module) is nn.Conv2d:
            return self._conv(node, module, layout)
        if type(module) is nn.Linear:
            return self._linear(node, module, layout)
        if isinstance(module, _BatchNorm) and type(module).__module__.startswith("torch.nn"):
            return self._norm(node, "batch_norm", layout, 1)
        if (
            type(module).__name__ == "LayerNorm"
            and isinstance(module, nn.LayerNorm)
            and len(module.normalized_shape) == 1
        ):
            return self._norm(node, "layer_norm", layout, self._ndim(node) - 1)
        if type(module).__name__ == "LayerNorm2d" and isinstance(module, nn.LayerNorm):
            return self._norm(node, "layer_norm_first", layout, 1)
        if type(module) is nn.GroupNorm:
            if layout is None or len(layout.segments) > 1 or layout.segments[0].repeat > 1:
                return self._opaque(node, "its groups lie across several tensors")
            group = layout.segments[0].group.root
            group.unit = math.lcm(group.unit, group.size // module.num_groups)
            return self._norm(node, "group_norm", layout, 1)
        if type(module) is nn.Flatten:
            return self._flatten(node, layout, module.start_dim, module.end_dim)
        return self._opaque(node)

    def _visit_function(self, node: Node) -> Any:
        function: Any = node.target
        if self.shapes[node.name] is None and function not in (torch.chunk, torch.split, getattr):
            return None if not self._tensors(node) or function is operator.getitem else self._opaque(node)
        if function in _PASSING_FUNCTIONS or getattr(function, "__name__", "") == "stochastic_depth":
            return self._layout(node.args[0])
        if function in _ELEMENTWISE_FUNCTIONS:
            return self._elementwise(node)
        if function is torch.cat:
            tensors = node.args[0]
            axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
            return self._cat(node, tensors, axis)
        if function is torch.flatten:
            start = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
            end = node.kwargs.get("end_dim", node.args[2] if len(node.args) > 2 else -1)
            return self._flatten(node, self._layout(node.args[0]), start, end)
        if function in (torch.permute, torch.transpose, torch.mean, torch.squeeze, torch.unsqueeze, torch.chunk,
                        torch.split):  # fmt: skip
            return self._axes(node, function.__name__)
        if function is operator.getitem:
            return self._getitem(node)
        if function is F.pad:
            return self._pad(node)
        if function is getattr:
            return None
        return self._opaque(node)

    def _visit_method(self, node: Node) -> Any:
        name = str(node.target)
        if name in ("size", "dim", "numel"):
            return None
        if name in _PASSING_METHODS:
            return self._layout(node.args[0])
        if name in _ELEMENTWISE_METHODS:
            return self._elementwise(node)
        if name == "flatten":
            start = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
            end = node.kwargs.get("end_dim", node.args[2] if len(node.args) > 2 else -1)
            return self._flatten(node, self._layout(node.args[0]), start, end)
        if name in ("view", "reshape"):
            sizes = node.args[1:]
            if len(sizes) == 2 and sizes[1] == -1 and self._is_batch(sizes[0], node.args[0]):
                return self._flatten(node, self._layout(node.args[0]), 1, -1)
            return self._opaque(node, "it makes a new shape of numbers")
        if name in ("permute", "transpose", "mean", "squeeze", "unsqueeze", "chunk", "split", "expand"):
            return self._axes(node, name)
        return self._opaque(node)

    # Rules.

    def _conv(self, node: Node, conv: nn.Conv2d, layout: Layout | None) -> Layout | None:
        layout = self._known(layout, conv.in_channels, 1, node)
        if conv.groups == 1:
            return self._producer(node, "conv", layout, conv.out_channels, 1)
        if conv.groups == conv.in_channels == conv.out_channels:
            self.result.uses.append(Use(node, "depthwise", layout.segments, layout.segments))
            return layout
        if conv.in_channels == conv.out_channels and len(layout.segments) == 1 and layout.segments[0].repeat == 1:
            group = layout.segments[0].group.root
            group.unit = math.lcm(group.unit, conv.in_channels // conv.groups)
            self.result.uses.append(Use(node, "grouped", layout.segments, layout.segments))
            return layout
        reason = f"{node.target} is a grouped conv that changes the number of channels, or of several tensors"
        layout.freeze(reason)
        output = self._producer(node, "conv", layout, conv.out_channels, 1)
        output.freeze(reason)
        self.result.uses.pop()  # stays as it is
        return output

    def _linear(self, node: Node, linear: nn.Linear, layout: Layout | None) -> Layout | None:
        axis = self._ndim(node) - 1
        return self._producer(node, "linear", self._known(layout, linear.in_features, axis, node), linear.out_features,
                              axis)  # fmt: skip

    def _norm(self, node: Node, kind: str, layout: Layout | None, axis: int) -> Layout | None:
        if layout is None:
            return None  # stays whole
        if layout.axis != axis:
            return self._opaque(node, "it normalises another axis than the channels")
        self.result.uses.append(Use(node, kind, layout.segments, layout.segments))
        return layout

    def _producer(self, node: Node, kind: str, layout: Layout, channels: int, axis: int) -> Layout:
        output = Layout(axis, (Segment(self._new_group(channels, str(node.target))),))
        self.result.uses.append(Use(node, kind, layout.segments, output.segments))
        return output

    def _known(self, layout: Layout | None, channels: int, axis: int, node: Node) -> Layout:
        """The layout if it fits; else what it touches is frozen and the input is a group of its own, frozen too."""
        if layout is not None and layout.axis == axis and layout.size == channels:
            return layout
        reason = f"the input of {node.target} is not made up of channels that are known"
        if layout is not None:
            layout.freeze(reason)
        group = self._new_group(channels, f"{node.target} (input)")
        group.freeze(reason)
        return Layout(axis, (Segment(group),))

    def _elementwise(self, node: Node) -> Layout | None:
        shape = self.shapes[node.name]
        assert shape is not None
        found: Layout | None = None
        later: list[Node] = []
        for argument in node.args:
            if not isinstance(argument, fx.Node) or not self.shapes.get(argument.name):
                continue  # a number
            if argument.op == "get_attr":
                later.append(argument)
                continue
            layout = self._layout(argument)
            own_shape = self.shapes[argument.name]
            assert own_shape is not None
            if layout is None:
                if len(own_shape) == len(shape) and own_shape != shape and self._broadcasts(node, own_shape):
                    continue
                self._freeze(node.args, f"{self._describe(node)} with a value whose channels are not known")
                return self._first(node)
            if len(own_shape) != len(shape):
                return self._opaque(node, "its operands have other numbers of axes")
            if found is None:
                found = layout
            elif found.axis != layout.axis:
                return self._opaque(node, "its operands have their channels at other axes")
            elif layout.size == found.size:
                unite(found, layout, f"{self._describe(node)} of tensors that are made up of other parts")
            elif found.size == 1:
                found = layout
            elif layout.size != 1:
                return self._opaque(node)
        if found is None:
            return None
        for parameter in later:
            self._parameter(parameter, found, len(shape))
        return found

    def _broadcasts(self, node: Node, own_shape: Shape) -> bool:
        """Whether a value without known channels has one for all, as a spatial mask."""
        layouts = [self._layout(argument) for argument in node.args if isinstance(argument, fx.Node)]
        return any(layout is not None and own_shape[layout.axis] == 1 for layout in layouts)

    def _parameter(self, node: Node, layout: Layout, ndim: int) -> None:
        """A parameter that meets channels: it is cut where they are, if it has them."""
        shape = self.shapes[node.name]
        assert shape is not None
        axis = layout.axis - (ndim - len(shape))
        if axis < 0 or shape[axis] == 1:
            return
        if len(node.users) > 1 or shape[axis] != layout.size:
            layout.freeze(f"the parameter {node.target} is used more than once")
            return
        self.result.uses.append(Use(node, "parameter", (), layout.segments, axis))

    def _cat(self, node: Node, tensors: Any, axis: int) -> Layout | None:
        if not isinstance(tensors, Sequence):
            return self._opaque(node)
        shape = self.shapes[node.name]
        assert shape is not None
        axis %= len(shape)
        layouts = [self._layout(tensor) for tensor in tensors]
        known = [layout for layout in layouts if layout is not None]
        if not known:
            return None
        channel_axis = known[0].axis
        if any(layout.axis != channel_axis for layout in known):
            return self._opaque(node, "its tensors have their channels at other axes")
        if axis == channel_axis:
            if len(known) < len(layouts):
                return self._opaque(node, "the channels of a tensor are not known")
            return Layout(axis, tuple(segment for layout in known for segment in layout.segments))
        for tensor, layout in zip(tensors, layouts, strict=True):
            if layout is None:
                source = tensor
                while source.op == "call_method" and source.target == "expand":
                    source = source.args[0]
                if source.op != "get_attr":
                    return self._opaque(node, "the channels of a tensor are not known")
                self._parameter(source, known[0], len(shape))
            elif layout is not known[0]:
                unite(known[0], layout, f"{self._describe(node)} of tensors that are made up of other parts")
        return known[0]

    def _flatten(self, node: Node, layout: Layout | None, start: int, end: int) -> Layout | None:
        source = self.shapes[node.args[0].name]
        if layout is None or source is None:
            return None
        start, end = start % len(source), end % len(source)
        if start == end:
            return layout
        if end < layout.axis:
            return Layout(layout.axis - (end - start), layout.segments)
        if start > layout.axis:
            return layout
        if start != layout.axis or any(segment.repeat > 1 for segment in layout.segments):
            return self._opaque(node, "it mixes channels with what is before them")
        repeat = 1
        for size in source[start + 1 : end + 1]:
            repeat *= size
        return Layout(start, tuple(Segment(segment.group, repeat) for segment in layout.segments))

    def _axes(self, node: Node, name: str) -> Any:
        source = self.shapes[node.args[0].name]
        layout = self._layout(node.args[0])
        if layout is None or source is None:
            return None
        ndim = len(source)
        rest = list(node.args[1:])
        if name == "permute":
            order = rest[0] if rest and isinstance(rest[0], list | tuple) else rest or node.kwargs["dims"]
            return Layout([axis % ndim for axis in order].index(layout.axis), layout.segments)
        if name == "transpose":
            first, second = (axis % ndim for axis in rest)
            axis = {first: second, second: first}.get(layout.axis, layout.axis)
            return Layout(axis, layout.segments)
        if name == "expand":
            return self._opaque(node)
        if name in ("chunk", "split"):
            axis = node.kwargs.get("dim", rest[1] if len(rest) > 1 else 0) % ndim
            return self._split(node, name, layout, axis, rest[0])
        given = node.kwargs.get("dim", rest[0] if rest else None)
        axes = given if isinstance(given, list | tuple) else [given]
        if any(not isinstance(axis, int) for axis in axes):
            return self._opaque(node, "its axes are not told")
        if name == "unsqueeze":
            (axis,) = (axis % (ndim + 1) for axis in axes)
            return Layout(layout.axis + (axis <= layout.axis), layout.segments)
        gone = {axis % ndim for axis in axes}
        if layout.axis in gone:
            return self._opaque(node, "it takes channels together")
        keeps = name == "mean" and node.kwargs.get("keepdim", rest[1] if len(rest) > 1 else False)
        if keeps:
            return layout
        if name == "squeeze":
            gone = {axis for axis in gone if source[axis] == 1}
        return Layout(layout.axis - sum(axis < layout.axis for axis in gone), layout.segments)

    def _split(self, node: Node, name: str, layout: Layout, axis: int, sizes: Any) -> Any:
        if axis != layout.axis:
            return tuple([layout] * 1_000)  # cut along another axis: all parts have all channels
        total = layout.size
        if name == "chunk":
            step = -(-total // sizes)
            sizes = [min(step, total - start) for start in range(0, total, step)]
        elif isinstance(sizes, int):
            sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
        if not all(isinstance(size, int) for size in sizes):
            return self._opaque(node, "its sizes are computed")
        parts: list[tuple[Segment, ...]] = []
        left = list(layout.segments)
        for size in sizes:
            part: list[Segment] = []
            while left and sum(segment.size for segment in part) < size:
                part.append(left.pop(0))
            if sum(segment.size for segment in part) != size:
                return self._opaque(node, "it cuts through channels that are made together")
            parts.append(tuple(part))
        everything = tuple(segment for part in parts for segment in part)
        self.result.uses.append(Use(node, "split", everything, everything, axis, tuple(parts)))
        return tuple(Layout(axis, part) for part in parts)

    def _pad(self, node: Node) -> Layout | None:
        """Axes besides the channels, from the last on, two numbers each."""
        layout = self._layout(node.args[0])
        if layout is None:
            return None
        pads = node.args[1] if len(node.args) > 1 else node.kwargs["pad"]
        first = 2 * (self._ndim(node) - 1 - layout.axis)
        if isinstance(pads, fx.Node) or any(not isinstance(pad, int) or pad for pad in pads[first : first + 2]):
            return self._opaque(node, "it adds channels")
        return layout

    def _getitem(self, node: Node) -> Any:
        owner, index = node.args
        layout = self.result.layouts.get(owner) if isinstance(owner, fx.Node) else None
        if layout is None:
            return None
        if isinstance(layout, tuple):
            return layout[index] if isinstance(index, int) else self._opaque(node)
        indices = index if isinstance(index, tuple) else (index,)
        if any(i is None or i is Ellipsis or not isinstance(i, int | slice) for i in indices):
            return self._opaque(node)
        if len(indices) > layout.axis and not _takes_all(indices[layout.axis], layout.size):
            return self._opaque(node, "it picks channels by number")
        return Layout(layout.axis - sum(isinstance(i, int) for i in indices[: layout.axis]), layout.segments)

    # Helpers.

    def _new_group(self, size: int, name: str) -> ChannelGroup:
        group = ChannelGroup(size, name, len(self.result.groups))
        self.result.groups.append(group)
        return group

    def _layout(self, value: Any) -> Layout | None:
        layout = self.result.layouts.get(value) if isinstance(value, fx.Node) else None
        return layout if isinstance(layout, Layout) else None

    def _ndim(self, node: Node) -> int:
        return len(self.shapes[node.name] or ())

    def _tensors(self, node: Node) -> list[Node]:
        return [argument for argument in node.all_input_nodes if self.shapes.get(argument.name)]

    def _first(self, node: Node) -> Layout | None:
        layouts = [self._layout(argument) for argument in node.args]
        return next((layout for layout in layouts if layout is not None), None)

    def _is_batch(self, value: Any, tensor: Any) -> bool:
        """Whether a value is the first size of a tensor."""
        if not isinstance(value, fx.Node):
            return False
        if value.op == "call_method" and value.target == "size":
            return value.args[1:] == (0,)
        if value.target is operator.getitem and value.args[1] == 0 and isinstance(value.args[0], fx.Node):
            source = value.args[0]
            return source.target is getattr or (source.op == "call_method" and source.target == "size")
        return False

    def _freeze(self, value: Any, reason: str) -> None:
        def freeze(node: Node) -> Node:
            layout = self.result.layouts.get(node)
            for part in layout[:64] if isinstance(layout, tuple) else [layout]:
                if part is not None:
                    part.freeze(reason)
            return node

        fx.node.map_arg(value, freeze)

    def _opaque(self, node: Node, why: str = "there is no rule for it") -> Any:
        """Leave all channels that a node touches; its output's are not known."""
        self._freeze((node.args, node.kwargs), f"{self._describe(node)}: {why}")
        return None

    def _describe(self, node: Node) -> str:
        target: Any = node.target
        if node.op == "call_module":
            return f"{target} ({type(self.modules[str(target)]).__name__})"
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        return f"{node.name} ({name})"


def _takes_all(index: Any, size: int) -> bool:
    """Whether an index leaves an axis of so many positions, and one of fewer, as it is."""
    if not isinstance(index, slice) or index.start not in (None, 0) or index.step not in (None, 1):
        return False
    return index.stop is None or (isinstance(index.stop, int) and index.stop >= size)
