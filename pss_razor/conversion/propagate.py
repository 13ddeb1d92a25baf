"""How the channels of a network's tensors hang together (DESIGN.md, section 7)."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.conversion.groups import Axis, ChannelGroup, Channels
from pss_razor.conversion.layers import BiasedLinear, ComputedConv2d
from pss_razor.conversion.shapes import Shape, find_shuffle, match_axes, permutation
from pss_razor.conversion.trace import REGULARISER_NAMES

# torch.fx types what a node is called with as a union of everything.
Node = Any

# Modules and functions whose channels are those of their input.
_PASSING_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Upsample,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d,
)  # fmt: skip
_PASSING_FUNCTIONS = {
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh, F.sigmoid),
    *(F.tanh, F.dropout, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate),
    *(torch.relu, torch.sigmoid, torch.tanh, torch.clamp, torch.abs, torch.sqrt, torch.exp, operator.neg),
    *(torch.max_pool2d, torch.adaptive_avg_pool1d, operator.pow, torch.pow, torch.rsqrt, torch.square),
}
_PASSING_METHODS = {
    *("contiguous", "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "clamp", "clamp_", "float", "half", "clone"),
    *("to", "type_as", "detach", "hardtanh_", "pow", "sqrt", "rsqrt", "exp", "abs", "neg", "clamp_min"),
}
_ELEMENTWISE = {
    *("add", "iadd", "sub", "isub", "mul", "imul", "truediv", "itruediv", "div", "maximum", "minimum"),
    *("add_", "sub_", "mul_", "div_", "addcmul", "where"),
}
# Of them, those that work along the axes after the first two.
_SPATIAL_MODULES = (
    nn.Upsample, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d, nn.Dropout2d,
)  # fmt: skip
_SPATIAL_NAMES = ("pool", "interpolate")
# Methods whose second tensor tells a type alone.
_TYPES = {"to", "type_as"}
# Ways to cut that are tried; the last is taken, since each is right.
_MOST_ATTEMPTS = 12
# Uses that are layers.
_LAYERS = {"conv", "grouped", "linear", "batch_norm", "layer_norm", "group_norm"}
# Functions of positions along other axes than the channels.
_ALONG = {"softmax", "log_softmax", "normalize", "roll", "cumsum"}
# Functions that take positions of axes together; over the channels, some mean the same for fewer of them.
_REDUCTIONS = {"mean", "sum", "amax", "amin", "norm", "var", "std", "max"}
_MEANS = {"mean", "amax", "amin", "var", "std"}
_SIZE_METHODS = {"size", "dim", "numel"}
_RESHAPES = {"view", "reshape", "flatten", "unflatten", "reshape_as", "view_as"}


@dataclass(frozen=True)
class Use:
    """A part of the graph that works on channels.

    Args:
        node: The node.
        kind: ``"conv"``, ``"grouped"``, ``"linear"``, ``"batch_norm"``, ``"layer_norm"``, ``"group_norm"``: layers.
            ``"parameter"`` and ``"constant"``: what depends on no image and meets channels; ``"split"`` and
            ``"slice"``: a cut; ``"reshape"`` to numbers; ``"shuffle"``; ``"product"`` of two tensors, as in
            attention.
        inputs: Channels of its input, or of the product.
        outputs: Of its output, or of what is cut.
        axis: The channel axis of what is no layer.
        parts: Of a split or slice.
        source: What is reshaped, shuffled or sliced.
        order: Of a shuffle: of each position, the position before.
        index: Of a slice, the part that is taken.
        args: What the node is called with where all channels are cut.
        is_repeated: Whether its module has run before.
    """

    node: Node
    kind: str
    inputs: Axis | None
    outputs: Axis
    axis: int = 0
    parts: tuple[Axis, ...] = ()
    source: Node = None
    order: np.ndarray | None = None
    index: int = 0
    args: tuple[Any, ...] = ()
    is_repeated: bool = False


@dataclass(frozen=True, eq=False)
class Layout:
    """The channels of a tensor, before they are grouped.

    Args:
        axis: The channel axis, counted from the front.
        channels: Their numbers.
    """

    axis: int
    channels: np.ndarray

    @property
    def size(self) -> int:
        """Positions in the full network."""
        return len(self.channels)


@dataclass(frozen=True, eq=False)
class Count:
    """A number, or a shape, that depends on how many channels a tensor has.

    Args:
        channels: The channels.
        alone: Whether it depends on nothing else.
    """

    channels: np.ndarray
    alone: bool


@dataclass
class Propagation:
    """What is known of a graph's channels.

    Args:
        layouts: Node -> the channel axis of its value; None where nothing is known, or all channels stay.
        positions: Of these, which axis it is, counted from the front.
        uses: Parts that work on channels, in running order.
        groups: All groups, in running order.
    """

    layouts: dict[Node, Axis | None]
    positions: dict[Node, int]
    uses: list[Use]
    groups: list[ChannelGroup]


def propagate(network: fx.GraphModule, shapes: dict[str, Shape | None]) -> Propagation:
    """Follow the channels through a graph. An operation without a rule leaves those that it touches at full width.

    Where a reshape makes several axes of the channels, they are cut along one of them, of attention the heads; if what
    follows has no rule for that, along another. A grouped conv loses whole groups or, else, channels of each group.

    Args:
        network: The graph. Numbers that it computes from channels are fixed where a rule needs them so.
        shapes: Node name -> shape of its value, for a number of images that is no other size.
    """
    choices: dict[Node, int] = {}
    for _ in range(_MOST_ATTEMPTS):
        propagator = _Propagator(network, shapes, choices)
        propagator.run()
        changed = propagator.next_choices()
        if not changed:
            break
        choices |= changed
    network.graph.eliminate_dead_code()  # what computed numbers that have been fixed
    return propagator.result()


class _Propagator:
    """One attempt of :func:`propagate`.

    Args:
        network: The graph.
        shapes: Node name -> shape of its value.
        choices: Of a reshape that makes several axes of the channels, which of them is tried.
    """

    def __init__(self, network: fx.GraphModule, shapes: dict[str, Shape | None], choices: dict[Node, int]) -> None:
        self.network = network
        self.shapes = shapes
        self.choices = choices
        self.modules = dict(network.named_modules())
        self.channels = Channels()
        self.layouts: dict[Node, Any] = {}
        self.uses: list[dict[str, Any]] = []
        self.shuffles: dict[Node, tuple[Layout, Node, np.ndarray]] = {}
        self.cuts: dict[Node, tuple[np.ndarray, int]] = {}
        self.constants: set[Node] = set()
        self.first_runs: dict[str, tuple[Node, np.ndarray, np.ndarray]] = {}

    def run(self) -> None:
        """Visit every node."""
        for node in self.network.graph.nodes:
            is_computed = node.op.startswith("call")
            if node.op == "get_attr" or (is_computed and all(own in self.constants for own in node.all_input_nodes)):
                self.constants.add(node)
            self.layouts[node] = self._visit(node)

    def next_choices(self) -> dict[Node, int]:
        """Of nodes whose channels are not searched the next way to cut them; after the last, again the first."""
        nodes = [node for node, (_, count) in self.cuts.items() if self.choices.get(node, 0) < count]
        stay = self.channels.stay([self.cuts[node][0] for node in nodes])
        return {node: self.choices.get(node, 0) + 1 for node, stays in zip(nodes, stay, strict=True) if stays}

    def result(self) -> Propagation:
        """Group the channels."""
        wanted = [use[name] for use in self.uses for name in ("inputs", "outputs") if use.get(name) is not None]
        wanted += [part for use in self.uses for part in use.get("parts", ())]
        known = {node: layout for node, layout in self.layouts.items() if isinstance(layout, Layout)}
        groups, axes = self.channels.group([*wanted, *(layout.channels for layout in known.values())])
        found = iter(axes)
        axis_of = {id(own): next(found) for own in wanted}
        uses = []
        for use in self.uses:
            resolved = {name: axis_of[id(use[name])] for name in ("inputs", "outputs") if use.get(name) is not None}
            parts = tuple(axis_of[id(part)] for part in use.get("parts", ()))
            uses.append(Use(**{"inputs": None, **use, **resolved, "parts": parts}))
        layouts: dict[Node, Axis | None] = dict.fromkeys(self.layouts)
        positions = {node: layout.axis for node, layout in known.items()}
        return Propagation(layouts | dict(zip(known, found, strict=True)), positions, uses, groups)

    # What a node does.

    def _visit(self, node: Node) -> Any:
        if node in self.shuffles:
            layout, source, order = self.shuffles[node]
            channels = layout.channels[order]
            self._use(node, "shuffle", layout.channels, channels, axis=layout.axis, source=source, order=order)
            return Layout(layout.axis, channels)
        match node.op:
            case "placeholder":
                shape = self.shapes[node.name]
                if shape is None or len(shape) < 2:
                    return None
                channels = self.channels.new(shape[1], node.name)
                self.channels.freeze(channels, "the images' channels")
                return Layout(1, channels)
            case "output":
                self._freeze(node.args, "the network's outputs")
                return None
            case "get_attr":
                return None  # a parameter follows what it meets
            case "call_module":
                return self._visit_module(node, self.modules[str(node.target)])
        if self.shapes[node.name] is None and (count := self._count(node)) is not None:
            return count
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return self._visit_call(node, name)

    def _visit_module(self, node: Node, module: Any) -> Any:
        if not node.args or len(self._values(node)) > 1 + isinstance(module, BiasedLinear):
            return self._opaque(node)
        layout = self._layout(node.args[0])
        if isinstance(module, _SPATIAL_MODULES) and layout is not None and layout.axis != 1:
            return self._opaque(node)
        if isinstance(module, _PASSING_MODULES) or type(module).__name__ in REGULARISER_NAMES:
            return layout
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            return layout
        if type(module) in (nn.Conv2d, ComputedConv2d):
            return self._conv(node, module, layout)
        if type(module) in (nn.Linear, BiasedLinear):
            return self._linear(node, module, layout)
        if isinstance(module, _BatchNorm) and type(module).__module__.startswith("torch.nn"):
            return self._norm(node, "batch_norm", layout, 1)
        if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
            return self._norm(node, "layer_norm", layout, self._ndim(node) - 1)
        if type(module) is nn.GroupNorm:
            if layout is not None and layout.axis == 1 and module.num_groups > 1:
                self.channels.tie(layout.channels.reshape(module.num_groups, -1))
            return self._norm(node, "group_norm", layout, 1)
        if type(module) is nn.Flatten:
            return self._reshape(node)
        return self._opaque(node)

    def _visit_call(self, node: Node, name: str) -> Any:
        if not self._tensors(node):
            return None
        if self.shapes[node.name] is None and name not in ("chunk", "split", "unbind"):
            return None if name in ("getitem", "getattr", *_SIZE_METHODS) else self._opaque(node)
        if not node.args:
            return self._opaque(node)
        is_passing = node.target in (_PASSING_METHODS if node.op == "call_method" else _PASSING_FUNCTIONS)
        if is_passing or name == "stochastic_depth":
            layout = self._layout(node.args[0])
            if layout is not None and layout.axis != 1 and any(own in name for own in _SPATIAL_NAMES):
                return self._opaque(node)
            return layout if len(self._values(node)) == 1 or name in _TYPES else self._elementwise(node)
        if name in _ELEMENTWISE:
            return self._elementwise(node)
        if name in _RESHAPES:
            return self._reshape(node)
        if name in _ALONG:
            return self._along(node)
        if name in _REDUCTIONS:
            return self._reduce(node, name)
        rules: dict[str, Callable[[Node], Any]] = {
            "cat": self._cat, "concat": self._cat, "stack": self._stack, "permute": self._permute,
            "transpose": self._permute, "swapaxes": self._permute, "squeeze": self._reshape, "unsqueeze": self._reshape,
            "expand": self._expand, "chunk": self._split, "split": self._split, "unbind": self._unbind,
            "getitem": self._getitem, "pad": self._pad, "matmul": self._matmul, "bmm": self._matmul,
            "einsum": self._einsum, "scaled_dot_product_attention": self._attention,
        }  # fmt: skip
        rule = rules.get(name)
        return self._opaque(node) if rule is None else rule(node)

    # Numbers.

    def _count(self, node: Node) -> Count | None:
        """A number or shape that is computed from channels."""
        if node.target is getattr or node.target == "size":
            layout = self._layout(node.args[0])
            if layout is None or (node.target is getattr and node.args[1] != "shape"):
                return None
            if len(node.args) > 1 and node.target == "size":
                is_channels = node.args[1] % self._ndim(node.args[0]) == layout.axis
                return Count(layout.channels, True) if is_channels else None
            return Count(layout.channels, False)
        counts = [self.layouts[own] for own in node.all_input_nodes if isinstance(self.layouts[own], Count)]
        if not counts:
            return None
        if node.target is operator.getitem and isinstance(node.args[1], int | slice):
            owner, index = node.args
            if owner.target is getattr or owner.target == "size":
                layout = self._layout(owner.args[0])
                assert layout is not None
                axes = range(self._ndim(owner.args[0]))[index]
                is_channels = axes == layout.axis if isinstance(axes, int) else layout.axis in axes
                return Count(layout.channels, isinstance(axes, int)) if is_channels else None
        alone = len(counts) == len(node.all_input_nodes) and all(count.alone for count in counts)
        return Count(np.concatenate([count.channels for count in counts]), alone)

    def _fix(self, node: Node, value: Any, full: int) -> Any:
        """A size of a shape that is computed from channels becomes the full network's number."""
        count = self.layouts.get(value) if isinstance(value, fx.Node) else None
        if not isinstance(count, Count):
            return value
        if count.alone:
            return full
        self.channels.freeze(count.channels, f"{self._describe(node)}: its shape is computed from channels and others")
        return value

    # Layers.

    def _conv(self, node: Node, conv: nn.Conv2d, layout: Layout | None) -> Layout:
        layout = self._known(layout, conv.in_channels, 1, node)
        if conv.groups == 1:
            return self._producer(node, "conv", layout, conv.out_channels, 1)
        if conv.groups == conv.in_channels == conv.out_channels:
            self._use(node, "grouped", layout.channels, layout.channels)
            return Layout(1, layout.channels)
        output = self.channels.new(conv.out_channels, str(node.target))
        inputs, outputs = (own.reshape(conv.groups, -1) for own in (layout.channels, output))
        choice = self._choose(node, layout.channels, 2 if conv.groups < conv.in_channels else 1)
        if choice == 0:  # whole groups come and go
            self.channels.tie(np.concatenate([inputs, outputs], axis=1))
            self._use(node, "grouped", layout.channels, output)
        else:  # as many channels of each group
            self.channels.tie(inputs.T)
            self.channels.tie(outputs.T)
            self._use(node, "conv", inputs[0], output)
        return Layout(1, output)

    def _linear(self, node: Node, linear: nn.Linear, layout: Layout | None) -> Layout:
        axis = self._ndim(node) - 1
        layout = self._known(layout, linear.in_features, axis, node)
        output = self._producer(node, "linear", layout, linear.out_features, axis)
        if isinstance(linear, BiasedLinear):
            bias = node.args[1]
            if bias in self.constants:
                self._constant(node, bias, output, 0)
            else:
                self.channels.freeze(output.channels, f"{self._describe(node)}: its bias depends on the images")
        return output

    def _norm(self, node: Node, kind: str, layout: Layout | None, axis: int) -> Layout | None:
        if layout is None:
            return None  # stays whole
        if layout.axis != axis:
            return self._opaque(node, "it normalises another axis than the channels")
        self._use(node, kind, layout.channels, layout.channels)
        return layout

    def _producer(self, node: Node, kind: str, layout: Layout, channels: int, axis: int) -> Layout:
        output = self.channels.new(channels, str(node.target))
        self._use(node, kind, layout.channels, output)
        return Layout(axis, output)

    def _known(self, layout: Layout | None, channels: int, axis: int, node: Node) -> Layout:
        """The layout if it fits; else what it touches is frozen and the input is channels of its own, frozen too."""
        if layout is not None and layout.axis == axis:
            assert layout.size == channels
            return layout
        reason = f"the input of {node.target} is not made up of channels that are known"
        if layout is not None:
            self.channels.freeze(layout.channels, reason)
        return Layout(axis, self._unsearched(channels, f"{node.target} (input)", reason))

    # Operations on values.

    def _elementwise(self, node: Node) -> Layout | None:
        shape = self.shapes[node.name]
        assert shape is not None
        arguments = self._values(node)
        known = [own for own in arguments if (layout := self._layout(own)) is not None and layout.size > 1]
        axes = {self._from_behind(own) for own in known}
        if len(axes) > 1:
            return self._opaque(node, "its operands have their channels at other axes")
        if not known:
            return None
        (behind,) = axes
        axis = len(shape) - behind
        first: Layout | None = None
        for own in known:
            layout = self._layout(own)
            assert layout is not None
            if first is None:
                first = Layout(axis, layout.channels)
            else:
                self.channels.unite(first.channels, layout.channels)
        assert first is not None
        for own in arguments:
            own_shape = self.shapes[own.name]
            assert own_shape is not None
            if own in known or len(own_shape) < behind or own_shape[len(own_shape) - behind] == 1:
                continue
            if own not in self.constants:
                self.channels.freeze(
                    first.channels, f"{self._describe(node)} with a value whose channels are not known"
                )
            else:
                self._constant(node, own, first, len(own_shape) - behind)
        return first

    def _from_behind(self, node: Node) -> int:
        layout = self._layout(node)
        assert layout is not None
        return self._ndim(node) - layout.axis

    def _constant(self, node: Node, constant: Node, layout: Layout, axis: int) -> None:
        """What depends on no image and meets channels: it is cut where they are."""
        if constant.op == "get_attr" and len(constant.users) == 1:
            self._use(constant, "parameter", None, layout.channels, axis=axis)
        else:
            self._use(node, "constant", None, layout.channels, axis=axis, source=constant)

    def _cat(self, node: Node) -> Layout | None:
        tensors, axis = node.args[0], self._argument(node, 1, "dim", 0)
        if not isinstance(tensors, Sequence):
            return self._opaque(node)
        axis %= self._ndim(node)
        layouts = [self._layout(tensor) for tensor in tensors]
        known = [layout for layout in layouts if layout is not None]
        if not known:
            return None
        channel_axis = known[0].axis
        if any(layout.axis != channel_axis for layout in known):
            return self._opaque(node, "its tensors have their channels at other axes")
        if axis == channel_axis:
            parts = [
                self._unsearched(self._size(tensor, axis), tensor.name, f"{self._describe(node)} with a value whose "
                                 "channels are not known") if layout is None else layout.channels
                for tensor, layout in zip(tensors, layouts, strict=True)
            ]  # fmt: skip
            return Layout(axis, np.concatenate(parts))
        return self._alongside(node, tensors, channel_axis)

    def _stack(self, node: Node) -> Layout | None:
        tensors, axis = node.args[0], self._argument(node, 1, "dim", 0) % self._ndim(node)
        known = [layout.axis for tensor in tensors if (layout := self._layout(tensor)) is not None]
        if not known:
            return None
        if len(set(known)) > 1:
            return self._opaque(node, "its tensors have their channels at other axes")
        layout = self._alongside(node, tensors, known[0])
        return None if layout is None else Layout(layout.axis + (axis <= layout.axis), layout.channels)

    def _alongside(self, node: Node, tensors: Sequence[Node], axis: int) -> Layout | None:
        """Tensors that are joined at another axis have the same channels."""
        first: Layout | None = None
        for tensor in tensors:
            layout = self._layout(tensor)
            if layout is not None and first is None:
                first = layout
            elif layout is not None and first is not None:
                self.channels.unite(first.channels, layout.channels)
        assert first is not None
        for tensor in tensors:
            if self._layout(tensor) is None:
                source = tensor
                while source.op == "call_method" and source.target == "expand":
                    self._keep_size(source, axis)
                    source = source.args[0]
                if source not in self.constants:
                    return self._opaque(node, "the channels of a tensor are not known")
                self._constant(tensor if source is not tensor else node, source, first,
                               axis - self._ndim(node) + self._ndim(source))  # fmt: skip
        return first

    def _along(self, node: Node) -> Layout | None:
        """What works along axes that must not be the channels."""
        layout = self._layout(node.args[0])
        name = "dims" if "roll" in str(node.target) else "dim"
        axes = self._argument(node, 2 if name == "dims" or "normalize" in str(node.target) else 1, name, None)
        if layout is None:
            return None
        axes = axes if isinstance(axes, list | tuple) else [1 if axes is None and "normalize" in str(node) else axes]
        if any(not isinstance(axis, int) or axis % self._ndim(node) == layout.axis for axis in axes):
            return self._opaque(node)
        return layout

    def _reduce(self, node: Node, name: str) -> Layout | None:
        source = node.args[0]
        layout = self._layout(source)
        if layout is None:
            return None
        ndim = self._ndim(source)
        place = 2 if name == "norm" else 1
        given = self._argument(node, place, "dim", None)
        axes = given if isinstance(given, list | tuple) else range(ndim) if given is None else [given]
        if any(not isinstance(axis, int) for axis in axes):
            return self._opaque(node, "its axes are not told")
        gone = {axis % ndim for axis in axes}
        if layout.axis in gone:
            return None if name in _MEANS else self._opaque(node, "it takes channels together")
        if self._ndim(node) == ndim:
            return layout
        return Layout(layout.axis - sum(axis < layout.axis for axis in gone), layout.channels)

    # Operations on axes.

    def _permute(self, node: Node) -> Layout | None:
        layout = self._layout(node.args[0])
        if layout is None:
            return None
        return Layout(list(permutation(node, self._ndim(node))).index(layout.axis), layout.channels)

    def _reshape(self, node: Node) -> Layout | None:
        """Any change of shape: where the channels go is told by the shapes before and after."""
        source = node.args[0]
        layout = self._layout(source)
        before, after = self.shapes[source.name], self.shapes[node.name]
        assert before is not None and after is not None
        if layout is None:
            self._fix_sizes(node, after)
            return None
        matches = match_axes(before, after)
        if matches is None:
            return self._opaque(node)
        if layout.size == 1:
            self.channels.freeze(layout.channels, "it has 1 channel")
            self._fix_sizes(node, after)
            return None
        old, new = next((old, new) for old, new in matches if layout.axis in old)
        large = [axis for axis in new if after[axis] > 1]
        if [axis for axis in old if before[axis] > 1] == [layout.axis] and len(large) == 1:
            result = Layout(large[0], layout.channels)
        elif len(large) > 1 and math.prod(before[axis] for axis in old) == layout.size:
            shuffle = find_shuffle(node, layout.axis, self.shapes)
            if shuffle is not None:
                self.shuffles[shuffle[0]] = (layout, source, shuffle[1])
                return None
            result = self._cut_along_one(node, layout, large, after)
        elif len(large) == 1 and 0 not in old:
            shape = [before[axis] if axis == layout.axis else 1 for axis in old]
            spread = np.broadcast_to(layout.channels.reshape(shape), [before[axis] for axis in old])
            result = Layout(large[0], spread.ravel())
        else:
            return self._opaque(node, "it mixes channels with the images or with several axes")
        name = "" if node.op == "call_module" else str(node.target)
        like = self._like(node)
        if like is not None:
            other = self._layout(like)
            if other is None or other.axis != result.axis:
                return self._opaque(node)
            self.channels.tie(np.stack([result.channels, other.channels], axis=1))
        elif name in ("view", "reshape") or getattr(node.target, "__name__", "") == "reshape":
            if result.axis == len(after) - 1 and self._infers_last(node):
                return result
            if not self._fix_sizes(node, after, result.axis):
                return self._opaque(node, "its shape is computed")
            self._use(node, "reshape", layout.channels, result.channels, axis=result.axis, source=source)
        elif name == "unflatten":
            return self._opaque(node)
        return result

    def _like(self, node: Node) -> Node | None:
        """The tensor whose shape a reshape gives."""
        argument: Node = node.args[1] if len(node.args) == 2 else None
        if node.target in ("reshape_as", "view_as"):
            return argument
        is_shape = isinstance(argument, fx.Node) and argument.target is getattr and argument.args[1] == "shape"
        return argument.args[0] if is_shape else None

    def _infers_last(self, node: Node) -> bool:
        """Whether a reshape is to other sizes ``+ (-1,)``."""
        argument = node.args[1]
        is_sum = isinstance(argument, fx.Node) and argument.target is operator.add and len(node.args) == 2
        return is_sum and argument.args[1] == (-1,) and not isinstance(self.layouts[argument], Count)

    def _cut_along_one(self, node: Node, layout: Layout, large: Sequence[int], after: Shape) -> Layout:
        """Where channels become several axes, those of one position of one axis come and go together."""
        candidates = [*large[-2:], *large[:-2]]
        axis = candidates[self._choose(node, layout.channels, len(candidates))]
        cut = layout.channels.reshape([after[own] for own in large])
        rows = np.moveaxis(cut, large.index(axis), 0).reshape(after[axis], -1)
        self.channels.tie(rows)
        return Layout(axis, rows[:, 0])

    def _choose(self, node: Node, channels: np.ndarray, count: int) -> int:
        """Which of so many ways to cut channels is tried; a module's are cut the same way in all its runs."""
        node = self.first_runs.get(node.target, (node,))[0]
        self.cuts[node] = (channels, count)
        return self.choices.get(node, 0) % count

    def _fix_sizes(self, node: Node, after: Shape, axis: int | None = None) -> bool:
        """Whether the sizes of a reshape are told one by one; those that are computed from channels become numbers.

        So does the size of ``axis``, the channels.
        """
        sizes = node.args[1:]
        if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
            sizes = tuple(sizes[0])
        if len(sizes) != len(after):
            self._freeze_counts(node)
            return False
        node.args = (node.args[0], tuple(
            after[i] if i == axis and size != -1 else self._fix(node, size, after[i]) for i, size in enumerate(sizes)
        ))  # fmt: skip
        return True

    def _expand(self, node: Node) -> Layout | None:
        source = node.args[0]
        layout = self._layout(source)
        sizes = node.args[1:]
        if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
            sizes = tuple(sizes[0])
        shape = self.shapes[node.name]
        assert shape is not None
        if len(sizes) != len(shape):
            return self._opaque(node)
        sizes = [self._fix(node, size, shape[position]) for position, size in enumerate(sizes)]
        axis = None if layout is None else layout.axis + len(shape) - self._ndim(source)
        if layout is not None and axis is not None:
            if shape[axis] != layout.size:
                return self._opaque(node)
            sizes[axis] = -1
        node.args = (source, *sizes)
        return None if layout is None or axis is None else Layout(axis, layout.channels)

    def _keep_size(self, node: Node, axis: int) -> None:
        """Let an expansion leave an axis as it is."""
        sizes = list(node.args[1] if isinstance(node.args[1], list | tuple) else node.args[1:])
        sizes[axis] = -1
        node.args = (node.args[0], *sizes)

    def _split(self, node: Node) -> Any:
        layout = self._layout(node.args[0])
        if layout is None:
            return None
        axis = self._argument(node, 2, "dim", 0) % self._ndim(node.args[0])
        sizes = node.args[1] if len(node.args) > 1 else next(iter(node.kwargs.values()))
        total = self._size(node.args[0], axis)
        name = node.target if isinstance(node.target, str) else node.target.__name__
        if isinstance(sizes, int):
            step = -(-total // sizes) if name == "chunk" else sizes
            sizes = [min(step, total - start) for start in range(0, total, step)]
        if not isinstance(sizes, list | tuple) or not all(isinstance(size, int) for size in sizes):
            return self._opaque(node, "its sizes are computed")
        if axis != layout.axis:
            return (layout,) * len(sizes)  # all parts have all channels
        parts = tuple(np.split(layout.channels, np.cumsum(sizes)[:-1]))
        self._use(node, "split", layout.channels, layout.channels, axis=axis, parts=parts)
        return tuple(Layout(axis, part) for part in parts)

    def _unbind(self, node: Node) -> Any:
        layout = self._layout(node.args[0])
        if layout is None:
            return None
        axis = self._argument(node, 1, "dim", 0) % self._ndim(node.args[0])
        if axis == layout.axis:
            return self._opaque(node, "it picks channels by number")
        return (Layout(layout.axis - (axis < layout.axis), layout.channels),) * self._size(node.args[0], axis)

    def _pad(self, node: Node) -> Layout | None:
        """Axes besides the channels, from the last on, two numbers each."""
        layout = self._layout(node.args[0])
        if layout is None:
            return None
        pads = self._argument(node, 1, "pad", None)
        first = 2 * (self._ndim(node) - 1 - layout.axis)
        if not isinstance(pads, list | tuple) or any(not isinstance(p, int) or p for p in pads[first : first + 2]):
            return self._opaque(node, "it adds channels")
        return layout

    def _getitem(self, node: Node) -> Any:
        owner, index = node.args
        layout = self.layouts.get(owner) if isinstance(owner, fx.Node) else None
        if layout is None or isinstance(layout, Count):
            return None
        if isinstance(layout, tuple):
            return layout[index] if isinstance(index, int) else self._opaque(node)
        indices = list(index) if isinstance(index, tuple | list) else [index]
        if any(not (i is None or i is Ellipsis or isinstance(i, int | slice)) for i in indices):
            return self._opaque(node)
        real = sum(i is not None and i is not Ellipsis for i in indices)
        if Ellipsis in indices:
            place = indices.index(Ellipsis)
            indices[place : place + 1] = [slice(None)] * (self._ndim(owner) - real)
        axis, new_axis = 0, 0
        for place, own in enumerate(indices):
            if own is None:
                new_axis += 1
                continue
            if axis == layout.axis:
                return self._pick(node, layout, indices, place, new_axis)
            axis += 1
            new_axis += not isinstance(own, int)
        return Layout(new_axis + layout.axis - axis, layout.channels)

    def _pick(self, node: Node, layout: Layout, indices: list[Any], place: int, new_axis: int) -> Layout | None:
        """A slice of the channels."""
        own = indices[place]
        bounds = (own.start, own.stop, own.step) if isinstance(own, slice) else (node,)
        if any(isinstance(bound, fx.Node) for bound in bounds):
            return self._opaque(node, "it picks channels by number")
        start, stop, step = own.indices(layout.size)
        if step != 1 or stop <= start:
            return self._opaque(node, "it picks channels by number")
        if (start, stop) == (0, layout.size):
            return Layout(new_axis, layout.channels)
        parts = tuple(np.split(layout.channels, [start, stop]))
        rest = tuple(slice(None) if i == place else other for i, other in enumerate(indices))
        self._use(node, "slice", layout.channels, layout.channels, axis=layout.axis, source=node.args[0],
                  parts=tuple(part for part in parts if len(part)), index=int(start > 0), args=(rest,))  # fmt: skip
        return Layout(new_axis, parts[1])

    # Products.

    def _matmul(self, node: Node) -> Layout | None:
        first, second = node.args[:2]
        letters = "abcdefgh"
        rows, columns = self._ndim(first), self._ndim(second)
        if rows < 2 or columns < 2:
            return self._opaque(node)
        batch = letters[: max(rows, columns) - 2]
        return self._product(
            node, [(first, batch[len(batch) - rows + 2 :] + "xy"), (second, batch[len(batch) - columns + 2 :] + "yz")],
            batch + "xz",
        )  # fmt: skip

    def _einsum(self, node: Node) -> Layout | None:
        equation, *operands = node.args
        if not isinstance(equation, str) or "." in equation or "->" not in equation:
            return self._opaque(node)
        inputs, output = equation.replace(" ", "").split("->")
        return self._product(node, list(zip(operands, inputs.split(","), strict=True)), output)

    def _attention(self, node: Node) -> Layout | None:
        batch = "abcdefgh"[: self._ndim(node) - 2]
        names = ("query", "key", "value")
        queries, keys, values = (self._argument(node, place, name, None) for place, name in enumerate(names))
        mask = self._argument(node, 3, "attn_mask", None)
        masks = [] if mask is None else [(mask, (batch + "qk")[-self._ndim(mask) :])]
        axes = {own: None if (layout := self._layout(own)) is None else layout.axis for own in (queries, keys, values)}
        if set(axes.values()) == {len(batch) + 1}:  # channels of each head
            first, second, third = (self.layouts[own].channels for own in (queries, keys, values))
            self.channels.tie(np.stack([first, second], axis=1))
            both = np.concatenate([first, third])
            self._use(node, "product", both, both)
            return Layout(self._ndim(node) - 1, third)
        if len(batch) + 1 in axes.values():
            return self._opaque(node, "not all sides have channels of each head")
        operands = [(queries, batch + "qd"), (keys, batch + "kd"), (values, batch + "kv"), *masks]
        return self._product(node, operands, batch + "qv")

    def _product(self, node: Node, operands: Sequence[tuple[Node, str]], output: str) -> Layout | None:
        """A sum of products over axes, named by letters: the channels must all be at one of them."""
        known = [(own, layout) for own, _ in operands if (layout := self._layout(own)) is not None]
        letters = {dict(operands)[own][layout.axis] for own, layout in known}
        if not known:
            return None
        if len(letters) > 1 or len({layout.size for _, layout in known}) > 1:
            return self._opaque(node, "both sides have channels, at different axes")
        (letter,) = letters
        first = known[0][1]
        for _, layout in known[1:]:
            self.channels.tie(np.stack([first.channels, layout.channels], axis=1))
        for operand, own in operands:
            if self._layout(operand) is None and letter in own and self._size(operand, own.index(letter)) > 1:
                if operand not in self.constants:
                    return self._opaque(node, "one side's channels are not known")
                self._constant(node, operand, first, own.index(letter))
        self._use(node, "product", first.channels, first.channels)
        return Layout(output.index(letter), first.channels) if letter in output else None

    # Helpers.

    def _use(self, node: Node, kind: str, inputs: np.ndarray | None, outputs: np.ndarray, **more: Any) -> None:
        if kind in _LAYERS:
            assert inputs is not None
            first, *channels = self.first_runs.setdefault(node.target, (node, inputs, outputs))
            more["is_repeated"] = first is not node
            self.channels.unite(channels[0], inputs)
            self.channels.unite(channels[1], outputs)
        # Copies, since axes are told apart by identity.
        inputs = None if inputs is None else inputs.copy()
        parts = {"parts": tuple(part.copy() for part in more.pop("parts", ()))}
        self.uses.append({"node": node, "kind": kind, "inputs": inputs, "outputs": outputs.copy(), **parts, **more})

    def _unsearched(self, count: int, name: str, reason: str) -> np.ndarray:
        channels = self.channels.new(count, name)
        self.channels.freeze(channels, reason)
        return channels

    def _layout(self, value: Any) -> Layout | None:
        layout = self.layouts.get(value) if isinstance(value, fx.Node) else None
        return layout if isinstance(layout, Layout) else None

    def _ndim(self, node: Node) -> int:
        return len(self.shapes[node.name] or ())

    def _size(self, node: Node, axis: int) -> int:
        shape = self.shapes[node.name]
        assert shape is not None
        return shape[axis]

    def _argument(self, node: Node, place: int, name: str, default: Any) -> Any:
        if name == "dim" and "axis" in node.kwargs:
            return node.kwargs["axis"]
        return node.kwargs.get(name, node.args[place] if len(node.args) > place else default)

    def _values(self, node: Node) -> list[Node]:
        return [own for own in node.all_input_nodes if self.shapes.get(own.name) is not None]

    def _tensors(self, node: Node) -> list[Node]:
        return [own for own in node.all_input_nodes if self.shapes.get(own.name) is not None or self.layouts[own]]

    def _layouts_of(self, value: Any) -> Iterable[Layout]:
        nodes: list[Node] = []
        fx.node.map_arg(value, nodes.append)
        for node in nodes:
            layout = self.layouts.get(node)
            yield from (own for own in (layout if isinstance(layout, tuple) else [layout]) if isinstance(own, Layout))

    def _freeze(self, value: Any, reason: str) -> None:
        for layout in self._layouts_of(value):
            self.channels.freeze(layout.channels, reason)

    def _freeze_counts(self, node: Node) -> None:
        for own in node.all_input_nodes:
            count = self.layouts[own]
            if isinstance(count, Count):
                self.channels.freeze(count.channels, f"{self._describe(node)}: its shape is computed from channels")

    def _opaque(self, node: Node, why: str = "there is no rule for it") -> Any:
        """Leave all channels that a node touches; its output's are not known."""
        self._freeze((node.args, node.kwargs), f"{self._describe(node)}: {why}")
        self._freeze_counts(node)
        return None

    def _describe(self, node: Node) -> str:
        target: Any = node.target
        if node.op == "call_module":
            return f"{target} ({type(self.modules[str(target)]).__name__})"
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        return f"{node.name} ({name})"
