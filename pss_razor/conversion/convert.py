"""Turn a network into a supernet."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from pss_razor.conversion.depth import Block, find_runs, isolate
from pss_razor.conversion.groups import ChannelGroup, Segment
from pss_razor.conversion.importance import sort_channels
from pss_razor.conversion.latency_parts import find_parts, make_runnable
from pss_razor.conversion.layers import (
    ActiveChannels,
    PartialBatchNorm,
    PartialChannelsFirstNorm,
    PartialConv2d,
    PartialGroupNorm,
    PartialLayer,
    PartialLayerNorm,
    PartialLinear,
    PartialParameter,
    PartialSplit,
    ResidualBlock,
)
from pss_razor.conversion.propagate import Propagation, Propagator
from pss_razor.conversion.supernet import Supernet
from pss_razor.conversion.trace import ShapeReader, trace
from pss_razor.core import ConfigError, Dimension, SearchSpace, width_choices
from pss_razor.core.cost_graph import CostGraph, Extent, LayerSpec

_LAYERS: dict[str, type[PartialLayer]] = {
    "conv": PartialConv2d,
    "depthwise": PartialConv2d,
    "grouped": PartialConv2d,
    "linear": PartialLinear,
    "batch_norm": PartialBatchNorm,
    "layer_norm": PartialLayerNorm,
    "layer_norm_first": PartialChannelsFirstNorm,
    "group_norm": PartialGroupNorm,
}
_NORMS = ("batch_norm", "layer_norm", "layer_norm_first", "group_norm")
# Of the largest logit: what is allowed where sums are in another order.
_TOLERANCE = 1e-4


def convert(
    model: nn.Module,
    images: Tensor,
    *,
    width_range: tuple[float, float] = (0.5, 1.0),
    divisor: int = 8,
    depth: bool = True,
    sort: str | None = None,
    resolutions: Sequence[int] | None = None,
) -> Supernet:
    """Turn a network into a supernet that starts as the network, weights and all (DESIGN.md, section 7).

    Searched are the widths of convs and linear layers, how many blocks of a run of residual blocks stay, and the
    resolution. What the conversion does not understand is left at full width, with everything tied to it; see
    :meth:`Supernet.summary`.

    Args:
        model: Called with images, returns logits. It is copied.
        images: (N, C, H, W) like those it is for, of the largest resolution; N of at least 2 is safest.
        width_range: Smallest and largest share of a layer's channels; also the least share of a run's blocks.
        divisor: Widths are multiples of it.
        depth: Whether blocks may be skipped.
        sort: Order of the channels: by ``"l1"`` or ``"bn"``, see :func:`sort_channels`; None leaves them.
        resolutions: Sides of the images in pixels to choose from; None does not search them.

    Returns:
        The supernet, in the mode of ``model``; its largest subnet is active, and computes what ``model`` does.

    Raises:
        ConfigError: The network does not run on the images, cannot be traced (names the line), has nothing to search,
            or an argument cannot work.
    """
    low, high = width_range
    if not 0 < low <= high <= 1 or divisor < 1:
        raise ConfigError(f"width_range = {width_range} must be within (0, 1], and divisor = {divisor} at least 1")
    if images.dim() != 4:
        raise ConfigError(f"images have the shape {tuple(images.shape)}; give (N, C, H, W)")
    sizes = sorted(set(resolutions or ())) or [images.shape[-1]]
    if sizes[-1] != images.shape[-1] or images.shape[-1] != images.shape[-2]:
        raise ConfigError(
            f"images have {images.shape[-2]} x {images.shape[-1]} pixels; give square ones of the largest resolution, "
            f"{sizes[-1]}"
        )
    model = copy.deepcopy(model)
    expected = _logits(model, images)
    network = trace(model)
    readers = _read_shapes(network, images, sizes)
    largest = readers[sizes[-1]]
    num_outputs = _num_outputs(network, largest)
    propagation = Propagator(network, largest.shapes).run()
    runs = [run for run in find_runs(network) if len(run) > 1] if depth else []
    depth_dimensions, runs_of = _depth_dimensions(runs, low)
    width_dimensions, extents = _width_dimensions(
        propagation, low, high, divisor, _used_from(propagation, depth_dimensions, runs_of)
    )
    dimensions = [*width_dimensions, *depth_dimensions]
    if resolutions is not None:
        dimensions.append(Dimension("resolution", "resolution", tuple(sizes)))
    if not any(len(dimension.values) > 1 for dimension in dimensions):
        reasons = "; ".join(sorted({str(g.root.frozen) for g in propagation.groups})[:3])
        raise ConfigError(f"{type(model).__name__} has nothing to search: {reasons}")
    space = SearchSpace(dimensions)
    resolution = "resolution" if resolutions is not None else None
    latency_parts = find_parts(network, propagation, readers, extents, runs_of, resolution)
    blocks_of_latency = tuple(part.spec for part in latency_parts)
    graph = CostGraph(space, _layers(network, propagation, readers, sizes, space, extents, runs_of), blocks_of_latency)
    partial = _replace_layers(network, propagation)
    runnable = {part.spec.name: make_runnable(network, part) for part in latency_parts}
    if sort is not None:
        axes = [axis for module in partial for axis in module.axes()]
        norms = [axis for m in partial if isinstance(m, PartialBatchNorm) for axis in m.axes()[2:3]]
        groups = {g.root: None for g in propagation.groups if not g.root.frozen}
        sort_channels(axes, groups, sort, norms)
    blocks = _isolate_blocks(network, runs)
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    supernet = Supernet(network, graph, extents, blocks, partial, propagation, num_outputs, images.shape[1:], runnable)
    _check(supernet, images, expected, exact=sort is None)
    return supernet.train(model.training)


def _num_outputs(network: fx.GraphModule, reader: ShapeReader) -> int:
    shape = reader.shapes["output"]
    if shape is None or len(shape) != 2:
        raise ConfigError(
            f"{type(network).__name__} returns {shape or 'no tensor'}; it must return logits (N, classes)"
        )
    return shape[1]


def _logits(model: nn.Module, images: Tensor) -> Tensor | None:
    """In evaluation mode; None on the meta device."""
    if any(parameter.is_meta for parameter in model.parameters()):
        return None
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            return model(images)
    except Exception as error:
        raise ConfigError(
            f"{type(model).__name__} does not run on images of the shape {tuple(images.shape)}: {error}"
        ) from error
    finally:
        for module, mode in training.items():
            module.training = mode


def _read_shapes(network: fx.GraphModule, images: Tensor, sizes: Sequence[int]) -> dict[int, ShapeReader]:
    readers = {}
    for size in sizes:
        readers[size] = ShapeReader(network)
        try:
            readers[size].read(images.shape[1], size)
        except Exception as error:
            raise ConfigError(f"the network does not run on images of {size} pixels: {error}") from error
    return readers


def _used_from(
    propagation: Propagation, depths: Sequence[Dimension], runs_of: Mapping[str, Extent]
) -> dict[ChannelGroup, tuple[str, int]]:
    """The groups that blocks which can be skipped have alone -> depth and its least value that keeps one of them."""
    runs: dict[ChannelGroup, list[Extent | None]] = {}
    for use in propagation.uses:
        for segment in itertools.chain(use.inputs, use.outputs, *use.parts):
            runs.setdefault(segment.group.root, []).append(runs_of.get(use.node.name))
    used_from = {}
    for group, own in runs.items():
        names = {None if run is None else run.dimension for run in own}
        if len(names) == 1 and None not in names:
            (depth,) = (dimension for dimension in depths if dimension.name in names)
            first = min(int(np.argmax(run.values)) for run in own if run is not None)
            used_from[group] = (depth.name, depth.values[first])
    return used_from


def _width_dimensions(
    propagation: Propagation, low: float, high: float, divisor: int, used_from: Mapping[ChannelGroup, tuple[str, int]]
) -> tuple[list[Dimension], dict[ChannelGroup, Extent]]:
    """A dimension for each group that is searched, and the widths of all groups."""
    dimensions: list[Dimension] = []
    extents: dict[ChannelGroup, Extent] = {}
    for group in propagation.groups:
        root = group.root
        if root in extents:
            continue
        step = math.lcm(divisor, root.unit)
        choices = {root.size: 1.0}
        if root.frozen is None and root.size % step == 0:
            choices = width_choices(root.size, low, high, step)
        elif root.frozen is None:
            widths = [w for w in range(step, root.size, step) if low * root.size <= w <= high * root.size]
            choices = dict.fromkeys([*widths, root.size], 1 / (len(widths) + 1))
        if len(choices) == 1:
            root.freeze(f"it has {root.size} channels, no multiple of {step} within {low:g} to {high:g} of that")
            extents[root] = Extent(None, np.array([root.size]))
            continue
        dimensions.append(
            Dimension(root.name, "channels", tuple(choices), tuple(choices.values()), used_from.get(root))
        )
        extents[root] = Extent(root.name, np.array(list(choices)))
    return dimensions, extents


def _depth_dimensions(runs: Sequence[Sequence[Block]], low: float) -> tuple[list[Dimension], dict[str, Extent]]:
    """A dimension for each run, and for each node of a block that can be skipped whether it runs."""
    dimensions: list[Dimension] = []
    runs_of: dict[str, Extent] = {}
    for number, run in enumerate(runs):
        least = math.ceil(low * len(run))
        if least == len(run):
            continue
        name = f"depth{number}"
        values = np.arange(least, len(run) + 1)
        dimensions.append(Dimension(name, "value", tuple(values.tolist())))
        for index, block in enumerate(run):
            if index >= least:
                extent = Extent(name, (values > index).astype(np.int64))
                runs_of |= {node.name: extent for node in block.nodes}
    return dimensions, runs_of


def _layers(
    network: fx.GraphModule,
    propagation: Propagation,
    readers: dict[int, ShapeReader],
    sizes: Sequence[int],
    space: SearchSpace,
    extents: dict[ChannelGroup, Extent],
    runs_of: dict[str, Extent],
) -> tuple[LayerSpec, ...]:
    """A layer with several segments is as many layers, since its costs add up."""
    modules = dict(network.named_modules())
    resolution = "resolution" if "resolution" in space.names else None
    one = Extent(None, np.array([1]))

    def areas(node: fx.Node, divisor: int) -> Extent:
        values = np.array([readers[size].macs[node.name] // divisor for size in sizes])
        return Extent(resolution, values)

    def channels(segment: Segment) -> Extent:
        extent = extents[segment.group.root]
        return Extent(extent.dimension, extent.values * segment.repeat)

    layers: list[LayerSpec] = []
    searched: set[str] = set()
    for use in propagation.uses:
        name, runs = use.node.name, runs_of.get(use.node.name)
        module = modules.get(str(use.node.target))
        if use.kind == "split":
            continue
        searched.add(name)
        if use.kind == "parameter":
            shape = readers[sizes[-1]].shapes[name]
            assert shape is not None
            other = math.prod(shape) // shape[use.axis]
            is_learned = isinstance(_attribute(network, str(use.node.target)), nn.Parameter)
            layers += [
                LayerSpec(f"{name}{i}", "scale", other, False, one, channels(segment), one, one, runs)
                for i, segment in enumerate(use.outputs if is_learned else ())
            ]
        elif use.kind in _NORMS:
            affine = getattr(module, "weight", None) is not None
            kind = "norm" if getattr(module, "bias", None) is not None else "scale"
            layers += [
                LayerSpec(f"{name}{i}", kind, 1, False, one, channels(segment), one, one, runs)
                for i, segment in enumerate(use.outputs if affine else ())
            ]
        else:
            assert isinstance(module, nn.Conv2d | nn.Linear)
            has_bias = module.bias is not None
            kernel = math.prod(module.kernel_size) if isinstance(module, nn.Conv2d) else 1
            area = areas(use.node, module.weight.numel())
            if use.kind in ("depthwise", "grouped"):
                # In a grouped conv the channels of a group are as many as ever.
                fan_in = module.weight.shape[1]
                layers += [
                    LayerSpec(f"{name}{i}", "depthwise", kernel * fan_in, has_bias, channels(segment),
                              channels(segment), area, area, runs)
                    for i, segment in enumerate(use.outputs)
                ]  # fmt: skip
            else:
                (output,) = use.outputs
                layers += [
                    LayerSpec(f"{name}{i}", use.kind, kernel, has_bias and not i, channels(segment), channels(output),
                              area, area, runs)
                    for i, segment in enumerate(use.inputs)
                ]  # fmt: skip
    layers += _unsearched(network, readers, sizes, resolution, searched, runs_of, propagation)
    layers += _final_pool(network, propagation, readers, sizes, resolution, channels)
    return tuple(layers)


def _unsearched(
    network: fx.GraphModule,
    readers: dict[int, ShapeReader],
    sizes: Sequence[int],
    resolution: str | None,
    searched: set[str],
    runs_of: dict[str, Extent],
    propagation: Propagation,
) -> list[LayerSpec]:
    """What costs something besides, node by node."""
    one = Extent(None, np.array([1]))
    layers = []
    uses = [_attribute(network, str(use.node.target)) for use in propagation.uses if use.kind != "split"]
    # By identity: a network may look at a weight's dtype besides calling its layer.
    counted = {id(parameter) for own in uses for parameter in _parameters(own)}
    for node in network.graph.nodes:
        if node.name in searched:
            continue
        macs = np.array([readers[size].macs.get(node.name, 0) for size in sizes])
        learned = 0
        if node.op in ("call_module", "get_attr"):
            new = [p for p in _parameters(_attribute(network, str(node.target))) if id(p) not in counted]
            counted |= {id(parameter) for parameter in new}
            learned = sum(parameter.numel() for parameter in new)
        if macs.any() or learned:
            parameters_extent = Extent(None, np.array([learned]))
            area = Extent(resolution, macs)
            layers.append(
                LayerSpec(node.name, "fixed", 1, False, one, parameters_extent, area, one, runs_of.get(node.name))
            )
    return layers


def _final_pool(
    network: fx.GraphModule,
    propagation: Propagation,
    readers: dict[int, ShapeReader],
    sizes: Sequence[int],
    resolution: str | None,
    channels: Callable[[Segment], Extent],
) -> list[LayerSpec]:
    """The last average pooling, whose input elements count as in PSS-Net."""
    modules = dict(network.named_modules())
    one = Extent(None, np.array([1]))
    found = None
    for node in network.graph.nodes:
        is_pool = node.op == "call_module" and isinstance(modules[str(node.target)], nn.AdaptiveAvgPool2d)
        if is_pool or node.target is torch.nn.functional.adaptive_avg_pool2d:
            found = node
    layout = None if found is None else propagation.layouts.get(found.args[0])
    if found is None or layout is None:
        return []
    shapes = [readers[size].shapes[found.args[0].name] for size in sizes]
    area = Extent(resolution, np.array([math.prod(shape[2:]) for shape in shapes if shape is not None]))
    return [
        LayerSpec(f"{found.name}{i}", "pool", 1, False, channels(segment), channels(segment), area, one)
        for i, segment in enumerate(layout.segments)
    ]


def _parameters(owner: object) -> list[nn.Parameter]:
    """Of a module, or the parameter itself."""
    if isinstance(owner, nn.Module):
        return list(owner.parameters())
    return [owner] if isinstance(owner, nn.Parameter) else []


def _attribute(network: nn.Module, name: str) -> object:
    owner, _, last = name.rpartition(".")
    return getattr(network.get_submodule(owner), last)


def _replace_layers(network: fx.GraphModule, propagation: Propagation) -> list[PartialLayer]:
    """Put a partial layer in the place of each that a searched group touches."""
    made: list = []
    for use in propagation.uses:
        if all(segment.group.root.frozen for segment in (*use.inputs, *use.outputs)):
            continue
        inputs, outputs = ActiveChannels(use.inputs), ActiveChannels(use.outputs)
        module: nn.Module
        if use.kind == "parameter":
            name = str(use.node.target)
            value = _attribute(network, name)
            assert isinstance(value, Tensor)
            module = PartialParameter(value, use.axis, outputs)
            owner, _, last = name.rpartition(".")
            parent = network.get_submodule(owner)
            delattr(parent, last)
            parent.add_module(last, module)
            use.node.op, use.node.args = "call_module", ()
        elif use.kind == "split":
            module = PartialSplit(use.axis, [ActiveChannels(part) for part in use.parts])
            name = f"split_{use.node.name}"
            network.add_module(name, module)
            use.node.op, use.node.target, use.node.kwargs = "call_module", name, {}
            use.node.args = (use.node.args[0],)
        else:
            layer = network.get_submodule(str(use.node.target))
            module = _LAYERS[use.kind].become(layer, inputs, outputs)
        made.append(module)
    return made


def _isolate_blocks(network: fx.GraphModule, runs: Sequence[Sequence[Block]]) -> list[list[ResidualBlock]]:
    made = []
    ends: dict[fx.Node, fx.Node] = {}
    for number, run in enumerate(runs):
        modules = []
        for index, block in enumerate(run):
            block = Block(ends.get(block.start, block.start), block.end, block.nodes)
            module = isolate(network, block, f"residual_block{number}_{index}")
            call = next(n for n in network.graph.nodes if n.op == "call_module" and n.args == (block.start,)
                        and network.get_submodule(str(n.target)) is module)  # fmt: skip
            ends[block.end] = call
            modules.append(module)
        made.append(modules)
    return made


def _check(supernet: Supernet, images: Tensor, expected: Tensor | None, exact: bool) -> None:
    """The largest subnet computes what the network does, and the smallest runs."""
    if expected is None:
        return
    supernet.eval()
    with torch.no_grad():
        logits = supernet(images)
        error = float((logits - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        if error > (0 if exact else _TOLERANCE):
            raise RuntimeError(f"the largest subnet's logits differ by {error:.3g} of the largest; please report this")
        with supernet.active(supernet.space.smallest):
            supernet(images)
