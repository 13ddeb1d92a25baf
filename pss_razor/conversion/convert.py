"""Turn a network into a supernet."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pss_razor.conversion.depth import Block, find_runs, isolate
from pss_razor.conversion.groups import ChannelGroup, Segment
from pss_razor.conversion.importance import Batch, check_sort, sort_channels
from pss_razor.conversion.latency_parts import PartFinder, make_runnable
from pss_razor.conversion.layers import (
    ActiveChannels,
    ComputedConv2d,
    PartialBatchNorm,
    PartialComputedConv2d,
    PartialComputedGroupedConv2d,
    PartialConv2d,
    PartialGroupedConv2d,
    PartialGroupNorm,
    PartialLayer,
    PartialLayerNorm,
    PartialLinear,
)
from pss_razor.conversion.operations import (
    PartialIndex,
    PartialOperation,
    PartialParameter,
    PartialReshape,
    PartialShuffle,
    PartialSplit,
)
from pss_razor.conversion.propagate import Propagation, Use, propagate
from pss_razor.conversion.supernet import Supernet
from pss_razor.conversion.trace import ShapeReader, evaluating, trace
from pss_razor.core import ConfigError, Dimension, SearchSpace, width_choices
from pss_razor.core.cost_graph import Concatenation, CostGraph, Extent, LayerSpec

_LAYERS: dict[str, type[PartialLayer]] = {
    "conv": PartialConv2d,
    "grouped": PartialGroupedConv2d,
    "linear": PartialLinear,
    "batch_norm": PartialBatchNorm,
    "layer_norm": PartialLayerNorm,
    "group_norm": PartialGroupNorm,
}
_COMPUTED: dict[str, type[PartialLayer]] = {
    "conv": PartialComputedConv2d,
    "grouped": PartialComputedGroupedConv2d,
}
# Uses that cost nothing.
_FREE = ("split", "slice", "reshape", "shuffle", "constant")
_NORMS = ("batch_norm", "layer_norm", "group_norm")
# Of the largest logit: what is allowed where sums are in another order.
_TOLERANCE = 1e-4
# Images of the run whose shapes are looked at: no size that a network has else, so that it is told from them.
_NUM_IMAGES = 13


def convert(
    model: nn.Module,
    images: Tensor,
    *,
    width_range: tuple[float, float] = (0.5, 1.0),
    divisor: int = 8,
    depth: bool = True,
    sort: str | None = None,
    resolutions: Sequence[int] | None = None,
    batches: Iterable[Batch] | None = None,
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
        sort: Order of the channels: by ``"l1"``, ``"bn"`` or ``"taylor"``, see :func:`sort_channels`; None leaves them.
        resolutions: Sides of the images in pixels to choose from; None does not search them.
        batches: Images (N, C, H, W) and labels (N,) for ``sort="taylor"``.

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
    check_sort(sort, batches)
    model = copy.deepcopy(model)
    expected = _logits(model, images)
    channels = images.shape[1]
    others = [(len(images) + 1, channels, size, size) for size in sizes]
    network = trace(model, images, others)
    readers = _read_shapes(network, images, sizes)
    largest = readers[sizes[-1]]
    num_outputs = _num_outputs(network, largest)
    batch = ShapeReader(network)
    batch.read(_NUM_IMAGES, *images.shape[1:])
    propagation = propagate(network, batch.shapes)
    runs = [run for run in find_runs(network) if len(run) > 1] if depth else []
    depth_dimensions, runs_of = _depth_dimensions(runs, low)
    width_dimensions, extents = _width_dimensions(
        propagation, low, high, divisor, _used_from(propagation, depth_dimensions, runs_of)
    )
    dimensions = [*width_dimensions, *depth_dimensions]
    if resolutions is not None:
        dimensions.append(Dimension("resolution", "resolution", tuple(sizes)))
    if not any(len(dimension.values) > 1 for dimension in dimensions):
        reasons = "; ".join(sorted({str(g.frozen) for g in propagation.groups})[:3])
        raise ConfigError(f"{type(model).__name__} has nothing to search: {reasons}")
    space = SearchSpace(dimensions)
    resolution = "resolution" if resolutions is not None else None
    latency_parts = PartFinder(network, propagation, readers, extents, runs_of, resolution).find()
    blocks_of_latency = tuple(part.spec for part in latency_parts)
    graph = CostGraph(space, _layers(network, propagation, readers, sizes, space, extents, runs_of), blocks_of_latency)
    partial = _replace_layers(network, propagation)
    runnable = make_runnable(network, latency_parts)
    if sort is not None:
        axes = [axis for module in partial for axis in module.axes()]
        norms = [axis for m in partial if isinstance(m, PartialBatchNorm) for axis in m.axes()[2:3]]
        groups = [group for group in propagation.groups if not group.frozen]
        network.recompile()
        sort_channels(network, axes, groups, sort, norms, batches or ())
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
    try:
        with evaluating(model), torch.no_grad():
            return model(images)
    except Exception as error:
        raise ConfigError(
            f"{type(model).__name__} does not run on images of the shape {tuple(images.shape)}: {error}"
        ) from error


def _read_shapes(network: fx.GraphModule, images: Tensor, sizes: Sequence[int]) -> dict[int, ShapeReader]:
    readers = {}
    for size in sizes:
        readers[size] = ShapeReader(network)
        try:
            readers[size].read(1, images.shape[1], size, size)
        except Exception as error:
            raise ConfigError(f"the network does not run on images of {size} pixels: {error}") from error
    return readers


def _used_from(
    propagation: Propagation, depths: Sequence[Dimension], runs_of: Mapping[str, Extent]
) -> dict[ChannelGroup, tuple[str, int]]:
    """The groups that blocks which can be skipped have alone -> depth and its least value that keeps one of them."""
    runs: dict[ChannelGroup, list[Extent | None]] = {}
    for use in propagation.uses:
        for axis in (use.inputs, use.outputs, *use.parts):
            for group in () if axis is None else axis.groups:
                runs.setdefault(group, []).append(runs_of.get(use.node.name))
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
        step = math.lcm(divisor, group.unit)
        choices = {group.size: 1.0}
        if group.frozen is None and group.size % step == 0:
            choices = width_choices(group.size, low, high, step)
        elif group.frozen is None:
            widths = [w for w in range(step, group.size, step) if low * group.size <= w <= high * group.size]
            choices = dict.fromkeys([*widths, group.size], 1 / (len(widths) + 1))
        if len(choices) == 1:
            group.freeze(f"it has {group.size} channels, no multiple of {step} within {low:g} to {high:g} of that")
            extents[group] = Extent(None, np.array([group.size]))
            continue
        dimensions.append(
            Dimension(group.name, "channels", tuple(choices), tuple(choices.values()), used_from.get(group))
        )
        extents[group] = Extent(group.name, np.array(list(choices)))
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
    """A layer whose output has several segments is as many layers, since its costs add up."""
    modules = dict(network.named_modules())
    resolution = "resolution" if "resolution" in space.names else None
    one = Extent(None, np.array([1]))

    def areas(node: fx.Node, divisor: int) -> Extent:
        values = np.array([readers[size].macs[node.name] // divisor for size in sizes])
        return Extent(resolution, values)

    def channels(segment: Segment) -> Extent:
        extent = extents[segment.group]
        return Extent(extent.dimension, segment.active(extent.values))

    layers: list[LayerSpec] = []
    searched: set[str] = set()
    for use in propagation.uses:
        name, runs = use.node.name, runs_of.get(use.node.name)
        inputs, outputs = () if use.inputs is None else use.inputs.segments, use.outputs.segments
        module = modules.get(str(use.node.target))
        if use.kind in _FREE:
            continue
        searched.add(name)
        if use.kind in _NORMS and use.is_repeated:
            continue
        if use.kind == "parameter":
            shape = readers[sizes[-1]].shapes[name]
            assert shape is not None
            other = math.prod(shape) // shape[use.axis]
            is_learned = isinstance(_attribute(network, str(use.node.target)), nn.Parameter)
            layers += [
                LayerSpec(f"{name}{i}", "scale", other, False, one, channels(segment), one, one, runs)
                for i, segment in enumerate(outputs if is_learned else ())
            ]
        elif use.kind in _NORMS:
            affine = getattr(module, "weight", None) is not None
            kind = "norm" if getattr(module, "bias", None) is not None else "scale"
            layers += [
                LayerSpec(f"{name}{i}", kind, 1, False, one, channels(segment), one, one, runs)
                for i, segment in enumerate(outputs if affine else ())
            ]
        elif use.kind == "product":
            area = areas(use.node, len(use.outputs.owner))
            layers += [
                LayerSpec(f"{name}{i}", "product", 1, False, one, channels(segment), area, area, runs)
                for i, segment in enumerate(outputs)
            ]
        else:
            assert isinstance(module, nn.Conv2d | nn.Linear)
            has_bias = module.bias is not None
            # A second run costs no parameters.
            has_own = not use.is_repeated
            kind = "product" if use.is_repeated else "depthwise" if use.kind == "grouped" else use.kind
            kernel = math.prod(module.kernel_size) if isinstance(module, nn.Conv2d) else 1
            area = areas(use.node, module.weight.numel())
            if use.kind == "grouped":
                # In a grouped conv the channels of a group are as many as ever.
                fan_in = module.weight.shape[1]
                layers += [
                    LayerSpec(f"{name}{i}", kind, kernel * fan_in, has_bias, channels(segment) if has_own else one,
                              channels(segment), area, area, runs)
                    for i, segment in enumerate(outputs)
                ]  # fmt: skip
            else:
                parts = tuple(map(channels, inputs))
                joined = parts[0] if len(parts) == 1 else Concatenation(parts)
                layers += [
                    LayerSpec(f"{name}{j}", kind, kernel, has_bias, joined, channels(output), area, area, runs)
                    for j, output in enumerate(outputs)
                ]
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
    uses = [
        _attribute(network, str(use.node.target)) for use in propagation.uses if use.kind in ("parameter", *_LAYERS)
    ]
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


def _replace_layers(network: fx.GraphModule, propagation: Propagation) -> list[PartialLayer | PartialOperation]:
    """Put a partial layer or operation in the place of each that a searched group touches."""
    made: list = []
    for use in propagation.uses:
        groups = [*use.outputs.groups, *(() if use.inputs is None else use.inputs.groups)]
        layer = network.get_submodule(str(use.node.target)) if use.kind in _LAYERS else None
        stays = all(group.frozen for group in groups) and not isinstance(layer, ComputedConv2d)
        if use.kind == "product" or use.is_repeated or stays:
            continue
        if layer is not None:
            assert use.inputs is not None
            partial = (_COMPUTED if isinstance(layer, ComputedConv2d) else _LAYERS)[use.kind]
            made.append(partial.become(layer, ActiveChannels(use.inputs), ActiveChannels(use.outputs)))
        elif use.kind == "parameter":
            made.append(_replace_parameter(network, use))
        else:
            made.append(_insert_operation(network, use))
    network.graph.eliminate_dead_code()
    return made


def _replace_parameter(network: fx.GraphModule, use: Use) -> PartialParameter:
    owner, _, last = str(use.node.target).rpartition(".")
    parent = network.get_submodule(owner)
    value = getattr(parent, last)
    module = PartialParameter(value, use.axis, ActiveChannels(use.outputs))
    delattr(parent, last)
    parent.add_module(last, module)
    use.node.op, use.node.args = "call_module", ()
    return module


def _insert_operation(network: fx.GraphModule, use: Use) -> PartialOperation:
    """An operation before the node, or in its place."""
    node, outputs = use.node, ActiveChannels(use.outputs)
    name = f"{use.kind}_{node.name}"
    module: PartialOperation
    match use.kind:
        case "constant":
            name = f"{name}_{use.source.name}"
            module = PartialIndex(outputs)
        case "split" | "slice":
            index = use.index if use.kind == "slice" else None
            module = PartialSplit(use.axis, [ActiveChannels(part) for part in use.parts], index)
        case "reshape":
            module = PartialReshape(use.axis, outputs)
        case _:
            assert use.inputs is not None and use.order is not None
            module = PartialShuffle(use.axis, ActiveChannels(use.inputs), outputs, use.order)
    network.add_module(name, module)
    if use.kind in ("constant", "slice"):
        with network.graph.inserting_before(node):
            if use.kind == "constant":
                positions = network.graph.call_module(name)
                part = network.graph.call_function(torch.index_select, (use.source, use.axis, positions))
            else:
                part = network.graph.call_module(name, (use.source,))
        node.replace_input_with(use.source, part)
        node.args = (node.args[0], *use.args) if use.args else node.args
    else:
        source = node.args[0] if use.source is None else use.source
        rest = node.args[1:] if use.kind == "reshape" else ()
        node.op, node.target, node.args, node.kwargs = "call_module", name, (source, *rest), {}
    return module


def _isolate_blocks(network: fx.GraphModule, runs: Sequence[Sequence[Block]]) -> list[list[Any]]:
    """Of each run, its blocks as modules that can be skipped."""
    made = []
    calls: dict[fx.Node, fx.Node] = {}
    for number, run in enumerate(runs):
        for index, block in enumerate(run):
            start = calls.get(block.start, block.start)
            calls[block.end] = isolate(network, start, block.end, f"residual_block{number}_{index}")
        made.append([network.get_submodule(str(calls[block.end].target)) for block in run])
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
