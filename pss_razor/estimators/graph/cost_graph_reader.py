"""Reading the cost graph off a built supernet.

The supernet runs on the meta device, once for each value of each search group, and forward hooks write down the real
shapes of every layer that costs something. Nothing is stated by hand, so a new backbone needs no code here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor import compat
from pss_razor.core import ConfigError, SearchSpace, Subnet
from pss_razor.core.cost_graph import BlockSpec, CostGraph, Extent, LayerSpec

from mmrazor.models.mutables import OneShotMutableOP

# Elementwise modules have the shape of their input; skipping them makes a meta forward thirty times quicker.
_ELEMENTWISE = (
    _BatchNorm,
    nn.ReLU,
    nn.Hardtanh,
    nn.SiLU,
    nn.Hardswish,
    nn.GELU,
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.Dropout,
)
_COSTED = (nn.Conv2d, nn.Linear, _BatchNorm, nn.AdaptiveAvgPool2d)

_Sizes = tuple[int, int, int, int]
_Record = dict[str, _Sizes]
_Extents = tuple[Extent, Extent, Extent, Extent]


def read_cost_graph(
    supernet: nn.Module,
    space: SearchSpace,
    active: Callable[[Subnet], AbstractContextManager[None]],
    input_channels: int = 3,
    input_size: int | None = None,
) -> CostGraph:
    """Read the layers and blocks of a supernet.

    A block is a candidate of a one-shot op, or a module with an attribute ``latency_block``, the name of its kind,
    which the backbone sets; every conv or linear layer outside of blocks is one of its own. Of average poolings only
    the last counts, as in PSS-Net; those inside squeeze-and-excitation do not.

    A supernet with a method ``cost_graph(space)``, as a converted network, is asked instead of run.

    Args:
        supernet: Called with images (1, C, H, W).
        space: Its search space.
        active: Context manager that activates a subnet, :meth:`SubnetMutator.active`.
        input_channels: C.
        input_size: H and W, for a supernet whose resolution is not searched.

    Returns:
        The cost graph.

    Raises:
        ConfigError: The resolution is not searched and ``input_size`` not given.
        NotImplementedError: A size depends on several search groups at once or on the choice of an op, whether a layer
            runs depends on several, a layer runs twice, or a conv has groups without being depthwise.
    """
    own: Any = supernet
    if hasattr(own, "cost_graph"):
        return own.cost_graph(space)
    resolution = next((dimension.name for dimension in space.dimensions if dimension.kind == "resolution"), None)
    if resolution is None and input_size is None:
        raise ConfigError("the supernet has no resolutions to search; set model.input_size to the side of its images")
    fixed_size = input_size or 0
    meta_state = {name: torch.empty_like(tensor, device="meta") for name, tensor in _state(supernet)}
    modules: dict[str, nn.Module] = {
        name: m
        for name, m in supernet.named_modules()
        if (isinstance(m, _COSTED) and getattr(m, "affine", True)) or hasattr(m, "latency_block")
    }
    candidates = _one_shot_candidates(supernet)
    modules |= candidates

    def probe(indices: np.ndarray) -> _Record:
        subnet = space.decode(indices)
        size = fixed_size if resolution is None else subnet[resolution]
        images = torch.empty(1, input_channels, size, size, device="meta")
        with active(subnet), _recording(modules) as record:
            torch.func.functional_call(supernet, meta_state, (images,))
        return record

    last = np.array(space.shape) - 1
    is_op = np.array([dimension.kind == "op" for dimension in space.dimensions])
    with _without_elementwise(supernet), torch.no_grad():
        extents: dict[str, _Extents] = {}
        homes: dict[str, _Sizes] = {}
        # Each candidate number in turn is chosen in all ops, so that every candidate runs. Changing one group shows
        # which sizes it governs; changing all groups together shows all values of the sizes.
        for choice in range(max(last[is_op], default=0) + 1):
            home = np.where(is_op, np.minimum(choice, last), last)
            base = probe(home)
            moved = {
                name: probe(np.where(np.arange(len(last)) == column, 0, home))
                for column, name in enumerate(space.names)
                if last[column] > 0 and not is_op[column]
            }
            together = [
                probe(np.where(is_op, home, np.minimum(value, last)))
                for value in range(max(np.array(space.shape)[~is_op], default=0))
            ]
            for record in (*moved.values(), *together):
                _check_same_layers(base, record)
            extents |= {name: _extents(name, space, base, moved, together) for name in base if name not in extents}
            homes |= {name: sizes for name, sizes in base.items() if name not in homes}
        runs = _find_runs(space, probe, last, is_op, homes)
        # ``base`` has layers in running order; ``extents`` has those of further choices behind those of the first.
        pools = {name for name in extents if isinstance(modules[name], nn.AdaptiveAvgPool2d)}
        inner_pools = pools - set([name for name in base if name in pools][-1:])
        layers = [
            _layer_spec(name, modules[name], extents[name], runs.get(name))
            for name in extents
            if isinstance(modules[name], _COSTED) and name not in inner_pools
        ]
        blocks = _without_redundant_widths(list(_block_specs(modules, set(candidates), extents, runs)))
        graph = CostGraph(space, tuple(layers), tuple(blocks))
        generator = np.random.default_rng(0)
        for _ in range(4):
            indices = generator.integers(last + 1)
            _check_extents(space, extents, runs, indices, probe(indices))
    return graph


def _one_shot_candidates(supernet: nn.Module) -> dict[str, nn.Module]:
    """The candidates of MMRazor's one-shot ops, by name."""
    return {
        f"{name}._candidates.{choice}": candidate
        for name, module in supernet.named_modules()
        if isinstance(module, OneShotMutableOP)
        for choice, candidate in compat.candidates_of(module).items()
    }


def _find_runs(
    space: SearchSpace,
    probe: Callable[[np.ndarray], _Record],
    last: np.ndarray,
    is_op: np.ndarray,
    homes: _Record,
) -> dict[str, Extent]:
    """For each layer that runs in some subnets only: with which choices of which op it runs, 1 or 0 for each."""
    if not is_op.any():
        return {}
    chosen_last = probe(last)
    runs: dict[str, Extent] = {}
    for column in np.flatnonzero(is_op):
        records = [probe(np.where(np.arange(len(last)) == column, v, last)) for v in range(last[column])]
        records.append(chosen_last)
        for name, home in homes.items():
            present = np.array([name in record for record in records], dtype=np.int64)
            # It does not depend on this op, or is of another op and does not run with that op's last choice.
            if present.all() or not present.any():
                continue
            if name in runs:
                raise NotImplementedError(
                    f"whether layer {name} runs depends on several search groups: {runs[name].dimension} and "
                    f"{space.names[column]}"
                )
            if any(record[name] != home for record in records if name in record):
                raise NotImplementedError(f"a size of layer {name} depends on the choice of {space.names[column]}")
            runs[name] = Extent(space.names[column], present)
    missing = [name for name in homes if name not in chosen_last and name not in runs]
    if missing:
        raise NotImplementedError(f"whether layer {missing[0]} runs depends on several search groups")
    return runs


def _check_same_layers(base: _Record, record: _Record) -> None:
    if record.keys() != base.keys():
        name = min(record.keys() ^ base.keys())
        raise NotImplementedError(f"layer {name} does not run in every subnet, and that not by the choice of an op")


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@contextlib.contextmanager
def _without_elementwise(module: nn.Module) -> Iterator[None]:
    # A forward that somebody has put on an instance is put back.
    skipped = {m: vars(m).get("forward") for m in module.modules() if isinstance(m, _ELEMENTWISE)}
    for m in skipped:
        vars(m)["forward"] = lambda x: x
    try:
        yield
    finally:
        for m, forward in skipped.items():
            if forward is None:
                del vars(m)["forward"]
            else:
                vars(m)["forward"] = forward


@contextlib.contextmanager
def _recording(modules: dict[str, nn.Module]) -> Iterator[_Record]:
    """Write (input channels, output channels, input area, output area) of each module that runs, by its name."""
    record: _Record = {}

    def hook(name: str) -> Callable[..., None]:
        def write(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            source = inputs[0]
            if name in record:
                raise NotImplementedError(f"layer {name} runs twice in a forward pass, which costs are not counted for")
            if isinstance(module, nn.Linear):
                areas = (math.prod(source.shape[1:-1]),) * 2  # tokens, where there are any
                channels = (source.shape[-1], output.shape[-1])
            else:
                areas = (source.shape[-2] * source.shape[-1], output.shape[-2] * output.shape[-1])
                channels = (source.shape[1], output.shape[1])
            record[name] = (*channels, *areas)

        return write

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _extents(
    name: str,
    space: SearchSpace,
    base: _Record,
    moved: dict[str, _Record],
    together: list[_Record],
) -> _Extents:
    """Input channels, output channels, input area and output area of one module."""

    def extent(position: int) -> Extent:
        governing = [group for group, record in moved.items() if record[name][position] != base[name][position]]
        if len(governing) > 1:
            raise NotImplementedError(f"a size of layer {name} depends on several search groups: {governing}")
        if not governing:
            return Extent(None, np.array([base[name][position]], dtype=np.int64))
        count = space.shape[space.position(governing[0])]
        return Extent(governing[0], np.array([record[name][position] for record in together[:count]], dtype=np.int64))

    return extent(0), extent(1), extent(2), extent(3)


def _layer_spec(name: str, module: nn.Module, extents: _Extents, runs: Extent | None) -> LayerSpec:
    kind, kernel_area = "linear", 1
    if isinstance(module, nn.Conv2d):
        if module.groups > 1 and not _is_depthwise(module):
            raise NotImplementedError(f"layer {name} is a grouped convolution of {module.groups} groups")
        kind, kernel_area = "depthwise" if _is_depthwise(module) else "conv", math.prod(module.kernel_size)
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        kind = "pool"
    elif isinstance(module, _BatchNorm):
        kind = "norm"
    return LayerSpec(name, kind, kernel_area, getattr(module, "bias", None) is not None, *extents, runs)


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return 1 < conv.groups == conv.in_channels == conv.out_channels


def _block_specs(
    modules: dict[str, nn.Module],
    candidates: set[str],
    extents: dict[str, _Extents],
    runs: dict[str, Extent],
) -> Iterator[BlockSpec]:
    """The declared blocks and the candidates of ops, and the convs and linear layers outside of them."""
    declared = [name for name in extents if name in candidates or hasattr(modules[name], "latency_block")]
    # Only the outermost counts, where declared blocks and candidates of ops are nested.
    declared = [name for name in declared if not any(name.startswith(f"{other}.") for other in declared)]
    inside = {name for name in extents for block in declared if name.startswith(f"{block}.")}
    for name, (channels_in, channels_out, area_in, area_out) in extents.items():
        module = modules[name]
        size = Extent(area_in.dimension, np.array([math.isqrt(area) for area in area_in.values], dtype=np.int64))
        own_runs = runs.get(name)
        if name in declared:
            convs = {n: conv for n in extents if n.startswith(f"{name}.") and isinstance(conv := modules[n], nn.Conv2d)}
            if not convs:  # a skip connection
                continue
            stride = round(math.sqrt(area_in.values[-1] / area_out.values[-1]))
            # Candidates of one class differ in their kernels.
            kernel = max(conv.kernel_size[0] for conv in convs.values()) if name in candidates else None
            kind = str(getattr(module, "latency_block", type(module).__name__))
            mid = extents[next(reversed(convs))][0]
            yield BlockSpec(name, kind, kernel, stride, None, size, channels_in, channels_out, mid, own_runs)
        elif name in inside:
            continue
        elif isinstance(module, nn.Conv2d):
            kind = "DepthwiseConv2d" if _is_depthwise(module) else "Conv2d"
            geometry = (module.kernel_size[0], module.stride[0], int(module.padding[0]))
            yield BlockSpec(name, kind, *geometry, size, channels_in, channels_out, None, own_runs)
        elif isinstance(module, nn.Linear):
            yield BlockSpec(name, "Linear", None, None, None, size, channels_in, channels_out, None, own_runs)


def _without_redundant_widths(blocks: Sequence[BlockSpec]) -> list[BlockSpec]:
    """Drop the hidden width of kinds of block in which it always is the input width, such as separable convs.

    That is decided by kind: the first block of MobileNetV2 does not expand, but others of its kind do.
    """
    hidden = {block.block_type for block in blocks if not _is_same(block.mid_channels, block.in_channels)}
    return [block if block.block_type in hidden else replace(block, mid_channels=None) for block in blocks]


def _is_same(a: Extent | None, b: Extent) -> bool:
    return a is not None and a.dimension == b.dimension and np.array_equal(a.values, b.values)


def _check_extents(
    space: SearchSpace,
    extents: dict[str, _Extents],
    runs: dict[str, Extent],
    indices: np.ndarray,
    record: _Record,
) -> None:
    """Check on one subnet that its sizes and which layers run are as the single search groups say."""

    def value(extent: Extent) -> int:
        return int(extent.values[0 if extent.dimension is None else indices[space.position(extent.dimension)]])

    for name, own in extents.items():
        if (name in record) != (name not in runs or value(runs[name]) == 1):
            raise NotImplementedError(
                f"layer {name} {'runs' if name in record else 'does not run'} in {space.decode(indices)}: whether it "
                "does depends on several search groups"
            )
        for extent, actual in zip(own, record.get(name, ()), strict=False):
            if value(extent) != actual:
                raise NotImplementedError(
                    f"layer {name} of {space.decode(indices)} has size {actual}, but {extent.dimension} alone says "
                    f"{value(extent)}: it depends on several search groups"
                )
