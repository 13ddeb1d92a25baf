"""The parts of a network that its latency is the sum of."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pss_razor.conversion.depth import find_runs
from pss_razor.conversion.groups import Axis, ChannelGroup
from pss_razor.conversion.propagate import Propagation, Use
from pss_razor.conversion.trace import REGULARISER_NAMES, ShapeReader
from pss_razor.core.cost_graph import Extent, PartSpec

# Combinations of widths, resolutions and depths that a block may have and still be measured as one: a table of its
# latency has as many entries, and the sampler ties its widths together.
_MOST_COMBINATIONS = 50_000
# They do nothing in evaluation mode.
_REGULARISERS = REGULARISER_NAMES | {"Dropout", "stochastic_depth"}
# Hexadecimal digits of the structure's hash in a kind's name.
_DIGITS = 10


@dataclass(frozen=True)
class PartInput:
    """A tensor that a part takes.

    Args:
        shapes: At each resolution, of one image and all channels.
        dtype: Its type.
        axis: The channel axis.
        channels: Its channels; None where they are not known, and all are there.
    """

    shapes: Mapping[int, tuple[int, ...]]
    dtype: torch.dtype
    axis: int = 0
    channels: Axis | None = None

    def side(self, size: int) -> int:
        """Of its feature map in pixels; of tokens, the root of their number."""
        shape = self.shapes[size]
        axis = self.axis if self.channels is not None else 1
        return math.isqrt(math.prod(length for number, length in enumerate(shape) if number not in (0, axis)))

    def make(self, size: int | None, batch: int, widths: Mapping[ChannelGroup, int]) -> Tensor:
        """Random numbers at a resolution, the largest by default; a tensor's first axis grows with the batch."""
        first, *shape = self.shapes[max(self.shapes) if size is None else size]
        shape = [first * batch, *shape]
        if self.channels is not None:
            active = (segment.active(np.array(widths[segment.group])) for segment in self.channels.segments)
            shape[self.axis] = int(sum(active))
        return (
            torch.randn(shape, dtype=self.dtype)
            if self.dtype.is_floating_point
            else torch.zeros(shape, dtype=self.dtype)
        )


@dataclass(frozen=True)
class Part:
    """Nodes whose latency is measured as one.

    Args:
        nodes: In running order; every node that takes time is in one part.
        inputs: The nodes that it takes tensors of, and what these are.
        spec: Its sizes.
    """

    nodes: tuple[fx.Node, ...]
    inputs: Mapping[fx.Node, PartInput]
    spec: PartSpec


@dataclass(frozen=True)
class RunnablePart:
    """A part apart from the network.

    Args:
        graph: Takes the inputs in order.
        modules: What it calls, by name.
        inputs: The tensors.
    """

    graph: fx.Graph
    modules: Mapping[str, Any]
    inputs: tuple[PartInput, ...]


def make_runnable(network: fx.GraphModule, parts: Sequence[Part]) -> dict[str, RunnablePart]:
    """Copy each part's nodes, and what operations on channels have been put before them, into a graph of its own."""
    order = {node: number for number, node in enumerate(network.graph.nodes)}
    return {part.spec.name: _make_runnable(network, part, order) for part in parts}


def _make_runnable(network: fx.GraphModule, part: Part, order: Mapping[fx.Node, int]) -> RunnablePart:
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in part.inputs}
    modules: dict[str, Any] = {}
    left = [node for node in part.nodes if node in order]
    for node in _closure(left, order, lambda source: source not in part.inputs):
        copies[node] = graph.node_copy(node, lambda argument: copies[argument])
        if node.op in ("call_module", "get_attr"):
            owner, _, last = str(node.target).rpartition(".")
            modules[str(node.target)] = getattr(network.get_submodule(owner), last)
    results = [node for node in left if any(user not in copies for user in node.users)] or left[-1:]
    graph.output(tuple(copies[node] for node in results) if len(results) > 1 else copies[results[0]])
    return RunnablePart(graph, modules, tuple(part.inputs.values()))


def _closure(
    nodes: Sequence[fx.Node], order: Mapping[fx.Node, int], belongs: Callable[[fx.Node], bool]
) -> tuple[fx.Node, ...]:
    """Nodes, and all that belongs to what they need, in running order."""
    needed, waiting = set(nodes), list(nodes)
    while waiting:
        new = {source for source in waiting.pop().all_input_nodes if belongs(source)} - needed
        needed |= new
        waiting += new
    return tuple(sorted(needed, key=order.__getitem__))


class PartFinder:
    """Divides a network into parts: residual blocks and modules of a class that occurs repeatedly, the largest first.

    A block is a part if all of it runs or none, and its widths, resolutions and depths have at most 50,000
    combinations; else the blocks inside of it are looked at. What is in none is divided into single layers, each with
    the norm, the activation and what else follows it.

    Args:
        network: The graph.
        propagation: Its channels.
        readers: Shapes at each resolution.
        extents: Widths of all groups.
        runs_of: Node name -> whether it runs, for those that can be skipped.
        resolution: The dimension of the resolution; None if that is not searched.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        propagation: Propagation,
        readers: Mapping[int, ShapeReader],
        extents: Mapping[ChannelGroup, Extent],
        runs_of: Mapping[str, Extent],
        resolution: str | None,
    ) -> None:
        self.network = network
        self.modules = dict(network.named_modules())
        self.propagation = propagation
        self.readers = readers
        self.extents = extents
        self.runs_of = runs_of
        self.resolution = resolution
        self.largest = readers[max(readers)]
        self.uses: dict[fx.Node, list[Use]] = {}
        for use in propagation.uses:
            self.uses.setdefault(use.node, []).append(use)
        self.order = {node: number for number, node in enumerate(network.graph.nodes)}
        self.nodes = [n for n in network.graph.nodes if n.op not in ("placeholder", "output") and not self._is_free(n)]

    def _is_free(self, node: fx.Node) -> bool:
        """Whether a node takes no time: a parameter, a number, a tuple of views."""
        if node.op in ("call_function", "call_method"):
            return self.largest.shapes[node.name] is None and not self.largest.macs[node.name]
        return node.op == "get_attr"

    def find(self) -> list[Part]:
        """The parts, in running order."""
        return [self._describe(nodes) for nodes in self._divide()]

    # Dividing.

    def _divide(self) -> list[tuple[fx.Node, ...]]:
        """The nodes of each part, in running order."""
        part_of: dict[fx.Node, int] = {}
        parts: list[list[fx.Node]] = []
        for nodes in sorted(self._blocks(), key=len, reverse=True):
            if not any(node in part_of for node in nodes) and self._can_be_measured(nodes):
                part_of |= dict.fromkeys(nodes, len(parts))
                parts.append(nodes)
        blocks = len(parts)
        for node in self.nodes:
            if node in part_of:
                continue
            sources = [source for source in node.all_input_nodes if source in part_of]
            before = max(sources, key=self.order.__getitem__, default=None)
            home = len(parts)
            if before is not None and not self._is_layer(node):
                own = part_of[before]
                in_block = own < blocks or self.runs_of.get(node.name) is not self._runs(parts[own])
                if not in_block or self.largest.shapes[before.name] is None:  # an element of a tuple
                    home = own
            if home == len(parts):
                parts.append([])
            part_of[node] = home
            parts[home].append(node)
        return [tuple(own) for own in sorted(parts, key=lambda own: self.order[own[0]])]

    def _blocks(self) -> Iterator[list[fx.Node]]:
        """Residual blocks, and the nodes of modules whose class the network has several of."""
        own = set(self.nodes)
        for run in find_runs(self.network):
            for block in run:
                yield [node for node in block.nodes if node in own]
        inside: dict[str, list[fx.Node]] = {}
        classes: dict[str, type] = {}
        for node in self.nodes:
            for path, (_, cls) in node.meta.get("nn_module_stack", {}).items():
                inside.setdefault(path, []).append(node)
                classes[path] = cls
        repeated = Counter(classes.values())
        for path, nodes in inside.items():
            if repeated[classes[path]] > 1 and not classes[path].__module__.startswith("torch.nn."):
                yield nodes

    def _can_be_measured(self, nodes: Sequence[fx.Node]) -> bool:
        runs = self._runs(nodes)
        if not any(map(self._is_layer, nodes)) or any(self.runs_of.get(node.name) is not runs for node in nodes):
            return False
        if any(self.largest.shapes[source.name] is None for source in self._sources(self._body(nodes))):
            return False
        widths = _Widths(self._axes(nodes))
        resolutions = len(self.readers) if self.resolution else 1
        depths = 1 if runs is None else len(runs.values)
        count = math.prod(len(self.extents[group].values) for group in widths.groups) * resolutions * depths
        return count <= _MOST_COMBINATIONS and widths.is_linear

    def _body(self, nodes: Sequence[fx.Node]) -> tuple[fx.Node, ...]:
        """Nodes and those that they need of nodes that take no time, in running order."""
        return _closure(nodes, self.order, self._is_free)

    def _sources(self, body: Sequence[fx.Node]) -> list[fx.Node]:
        """What they take from others."""
        inside = set(body)
        return list(dict.fromkeys(source for node in body for source in node.all_input_nodes if source not in inside))

    def _runs(self, nodes: Sequence[fx.Node]) -> Extent | None:
        return self.runs_of.get(nodes[0].name)

    def _is_layer(self, node: fx.Node) -> bool:
        """Whether it has a part of its own, unless it is in a block's: what works, and concatenations."""
        return self.largest.macs.get(node.name, 0) > 0 or node.target in (torch.cat, torch.concat)

    # Describing.

    def _describe(self, nodes: tuple[fx.Node, ...]) -> Part:
        """A part of nodes."""
        body = self._body(nodes)
        inputs = {source: self._input(source) for source in self._sources(body)}
        widths = _Widths(self._axes(nodes))
        text = _Text(self.modules, self.uses, widths)
        lines = text.lines(list(inputs), body)
        lines += [text.channels(axis) for axis in self._axes(nodes)]
        sides, shapes = [], []
        for resolution in self.readers:
            side = next((own.side(resolution) for own in inputs.values() if len(own.shapes[resolution]) > 2), 1)
            sides.append(side)
            shapes.append([text.shape(own, resolution, side) for own in inputs.values()])
        is_same = shapes == shapes[:1] * len(shapes) and len(set(sides)) == 1
        if is_same:
            sides, shapes = sides[:1], shapes[:1]
        name = self._class_name(nodes)
        spec = PartSpec(
            name=nodes[0].name,
            kinds=tuple(f"{name}-{_digest([*own, *lines])}" for own in shapes),
            in_size=Extent(None if is_same else self.resolution, np.array(sides)),
            widths=tuple(self.extents[group] for group in widths.groups),
            concatenated=tuple(self.extents[group] for group in widths.concatenated),
            runs=self._runs(nodes),
        )
        return Part(nodes, inputs, spec)

    def _axes(self, nodes: Sequence[fx.Node]) -> list[Axis]:
        """Channels of what nodes make, and of what works on channels, in running order."""
        found: list[Axis | None] = []
        for node in nodes:
            for use in self.uses.get(node, ()):
                found += [use.inputs, use.outputs, *use.parts]
            found.append(self.propagation.layouts.get(node))
        return [axis for axis in found if axis is not None]

    def _input(self, node: fx.Node) -> PartInput:
        shapes = {}
        for size, reader in self.readers.items():
            shape = reader.shapes[node.name]
            assert shape is not None, node
            shapes[size] = shape
        dtype = self.largest.dtypes[node.name]
        channels = self.propagation.layouts.get(node)
        return PartInput(shapes, dtype, self.propagation.positions.get(node, 0), channels)

    def _class_name(self, nodes: Sequence[fx.Node]) -> str:
        """Of the innermost module around all nodes, or of the first layer."""
        stacks = [list(node.meta.get("nn_module_stack", {}).values()) for node in nodes]
        around = [level[0][1] for level in zip(*stacks, strict=False) if all(own == level[0] for own in level)]
        own_classes = [cls for cls in around if not cls.__module__.startswith("torch.nn.")]
        if own_classes and len(nodes) > 1:
            return own_classes[-1].__name__
        first = nodes[0]
        module = self.modules.get(str(first.target)) if first.op == "call_module" else None
        return type(module).__name__ if module is not None else getattr(first.target, "__name__", str(first.target))


class _Widths:
    """Which widths a part depends on.

    Args:
        axes: Channels of its tensors, in running order.

    Attributes:
        groups: Searched groups that are a tensor of their own somewhere, in order.
        concatenated: The groups, searched or not, of the concatenation in which further searched ones are; one that
            occurs twice is there twice.
        is_linear: Whether all concatenations have the same of these, so that their sum says enough.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        parts = [_members(axis) for axis in axes]
        alone = {own[0] for own in parts if len(own) == 1}
        self.groups = list(dict.fromkeys(own[0] for own in parts if len(own) == 1 and own[0].frozen is None))
        further = [own for own in parts if any(group.frozen is None and group not in alone for group in own)]
        self.concatenated = [group for group in further[0] if group not in alone] if further else []
        sums = [Counter(group for group in own if group.frozen is None and group not in alone) for own in further]
        self.is_linear = all(own == sums[0] for own in sums)


class _Text:
    """What distinguishes the kinds of parts, as text: operations and settings, not names and widths that are searched.

    Args:
        modules: Of the network, by name.
        uses: What works on channels.
        widths: Of the part.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], uses: Mapping[fx.Node, Sequence[Use]], widths: _Widths
    ) -> None:
        self.modules = modules
        self.uses = uses
        self.numbers = {group: f"g{number}" for number, group in enumerate(widths.groups)}

    def lines(self, inputs: Sequence[fx.Node], nodes: Sequence[fx.Node]) -> list[str]:
        """A line for each node."""
        names = {node: f"@{number}" for number, node in enumerate(inputs)}
        found = []
        for number, node in enumerate(nodes):
            operation = self._operation(node)
            arguments: Any = fx.node.map_arg((node.args, node.kwargs), lambda argument: names[argument])
            if operation in _REGULARISERS:  # how often they drop something does not matter here
                arguments = [names[argument] for argument in node.all_input_nodes]
            found.append(f"{node.op} {operation} {arguments!r}")
            names[node] = f"%{number}"
        return found

    def channels(self, axis: Axis) -> str:
        """Searched groups by number, others by width; those of which the sum says enough as a plus sign."""
        found: list[str] = []
        for segment in axis.segments:
            group = segment.group
            own = str(group.size) if group.frozen is not None else self.numbers.get(group, "+")
            found.append(f"{own}*{segment.size / group.size:g}")
        if any(own.startswith("+") for own in found):
            return "+".join(own for own in found if own.startswith("g")) + "+"
        return ",".join(found)

    def shape(self, own: PartInput, resolution: int, side: int) -> str:
        """Of an input: its channels in the place of their number, the side as such."""
        first, *shape = own.shapes[resolution]
        found = [str(first), *("s" if length == side else str(length) for length in shape)]
        if own.channels is not None:
            found[own.axis] = self.channels(own.channels)
        return f"{found} {own.dtype}"

    def _operation(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return self._settings(self.modules[str(node.target)], self.uses.get(node, ()))
        if node.op == "get_attr":
            owner, _, last = str(node.target).rpartition(".")
            value: Any = getattr(self.modules[owner], last)
            shape = list(getattr(value, "shape", ()))
            for use in self.uses.get(node, ()):
                shape[use.axis] = self.channels(use.outputs)
            return f"{type(value).__name__} {shape}"
        return getattr(node.target, "__name__", str(node.target))

    def _settings(self, module: nn.Module, uses: Sequence[Use]) -> str:
        name = type(module).__name__
        if name in _REGULARISERS:
            return name
        tensors = [(key, own) for key, own in module.named_parameters()]
        if not uses:
            return f"{module!r} {[(key, *own.shape) for key, own in tensors]}"
        names = [key for key, _ in tensors]
        kinds = " ".join(use.kind for use in uses)
        if isinstance(module, nn.Conv2d):
            settings = (module.kernel_size, module.stride, module.padding, module.dilation, module.padding_mode)
            group = module.in_channels // module.groups if module.groups > 1 else None
            return f"{name} {kinds} {settings} {group} {names}"
        return f"{name} {kinds} {names}"


def _members(axis: Axis) -> list[ChannelGroup]:
    """The groups of an axis; of a concatenation that has one several times, as often."""
    segments = axis.segments
    if len(segments) == 1:
        return [segments[0].group]
    return [own.group for own in segments for _ in range(max(round(own.size / own.group.size), 1))]


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGITS]
