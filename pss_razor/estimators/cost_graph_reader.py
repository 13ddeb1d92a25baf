"""Reading the cost graph off a built supernet.

The supernet runs on the meta device, once for each value of each search group, and forward hooks write down the real
shapes of every layer that costs something. Nothing is stated by hand, so a new backbone needs no code here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.core import ConfigError, SearchSpace, Subnet
from pss_razor.estimators.layer_spec import BlockSpec, CostGraph, Extent, LayerSpec

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


def read_cost_graph(
    supernet: nn.Module,
    space: SearchSpace,
    active: Callable[[Subnet], AbstractContextManager[None]],
    input_channels: int = 3,
    input_size: int | None = None,
) -> CostGraph:
    """Read the layers and blocks of a supernet.

    A block is a module with an attribute ``latency_block``, the name of its kind, which the backbone sets; every conv
    or linear layer outside of blocks is one of its own.

    Args:
        supernet: Called with images (1, C, H, W).
        space: Its search space.
        active: Context manager that activates a subnet, :meth:`PSSMutator.active`.
        input_channels: C.
        input_size: H and W, for a supernet whose resolution is not searched.

    Returns:
        The cost graph.

    Raises:
        ConfigError: The resolution is not searched and ``input_size`` not given.
        NotImplementedError: A size depends on several search groups at once, or a layer runs twice or only in some
            subnets.
    """
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

    def probe(indices: np.ndarray) -> dict[str, _Sizes]:
        subnet = space.decode(indices)
        size = fixed_size if resolution is None else subnet[resolution]
        images = torch.empty(1, input_channels, size, size, device="meta")
        with active(subnet), _recording(modules) as record:
            torch.func.functional_call(supernet, meta_state, (images,))
        if base and record.keys() != base.keys():
            name = min(record.keys() ^ base.keys())
            raise NotImplementedError(
                f"layer {name} does not run in every subnet; costs of such layers are not read yet"
            )
        return record

    base: dict[str, _Sizes] = {}
    with _without_elementwise(supernet), torch.no_grad():
        last = np.array(space.shape) - 1
        base = probe(last)
        # Which group governs a size shows when one group moves; all its values show when all groups move together.
        moved = {
            name: probe(np.where(np.arange(len(last)) == column, 0, last))
            for column, name in enumerate(space.names)
            if last[column] > 0
        }
        together = [probe(np.minimum(value, last)) for value in range(max(space.shape))]
        extents = {name: _extents(name, space, base, moved, together) for name in base}
        layers = [
            _layer_spec(name, modules[name], extents[name]) for name in base if isinstance(modules[name], _COSTED)
        ]
        graph = CostGraph(space, tuple(layers), tuple(_block_specs(modules, extents)))
        generator = np.random.default_rng(0)
        for _ in range(4):
            indices = generator.integers(last + 1)
            _check_extents(space, extents, indices, probe(indices))
    return graph


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
def _recording(modules: dict[str, nn.Module]) -> Iterator[dict[str, _Sizes]]:
    """Write (input channels, output channels, input area, output area) of each module that runs, by its name."""
    record: dict[str, _Sizes] = {}

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
    base: dict[str, _Sizes],
    moved: dict[str, dict[str, _Sizes]],
    together: list[dict[str, _Sizes]],
) -> tuple[Extent, ...]:
    """Input channels, output channels, input area and output area of one module."""

    def extent(position: int) -> Extent:
        governing = [group for group, record in moved.items() if record[name][position] != base[name][position]]
        if len(governing) > 1:
            raise NotImplementedError(f"a size of layer {name} depends on several search groups: {governing}")
        if not governing:
            return Extent(None, np.array([base[name][position]], dtype=np.int64))
        count = space.shape[space.position(governing[0])]
        return Extent(governing[0], np.array([record[name][position] for record in together[:count]], dtype=np.int64))

    return tuple(extent(position) for position in range(4))


def _layer_spec(name: str, module: nn.Module, extents: tuple[Extent, ...]) -> LayerSpec:
    kind, kernel_area = "linear", 1
    if isinstance(module, nn.Conv2d):
        if module.groups > 1 and not _is_depthwise(module):
            raise NotImplementedError(f"layer {name} is a grouped convolution of {module.groups} groups")
        kind, kernel_area = "depthwise" if _is_depthwise(module) else "conv", math.prod(module.kernel_size)
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        kind = "pool"
    elif isinstance(module, _BatchNorm):
        kind = "norm"
    return LayerSpec(name, kind, kernel_area, getattr(module, "bias", None) is not None, *extents)


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return 1 < conv.groups == conv.in_channels == conv.out_channels


def _block_specs(modules: dict[str, nn.Module], extents: dict[str, tuple[Extent, ...]]) -> Iterator[BlockSpec]:
    """The declared blocks, and the convs and linear layers outside of them."""
    declared = [name for name, module in modules.items() if name in extents and hasattr(module, "latency_block")]
    inside = {name for name in extents for block in declared if name.startswith(f"{block}.")}
    for name, (channels_in, channels_out, area_in, area_out) in extents.items():
        module = modules[name]
        size = Extent(area_in.dimension, np.array([math.isqrt(area) for area in area_in.values], dtype=np.int64))
        if name in declared:
            convs = [n for n in inside if n.startswith(f"{name}.") and isinstance(modules[n], nn.Conv2d)]
            last_conv = max(convs, key=list(extents).index)
            stride = round(math.sqrt(area_in.values[-1] / area_out.values[-1]))
            kind = str(module.latency_block)
            yield BlockSpec(name, kind, None, stride, None, size, channels_in, channels_out, extents[last_conv][0])
        elif name in inside:
            continue
        elif isinstance(module, nn.Conv2d):
            kind = "DepthwiseConv2d" if _is_depthwise(module) else "Conv2d"
            geometry = (module.kernel_size[0], module.stride[0], int(module.padding[0]))
            yield BlockSpec(name, kind, *geometry, size, channels_in, channels_out, None)
        elif isinstance(module, nn.Linear):
            yield BlockSpec(name, "Linear", None, None, None, size, channels_in, channels_out, None)


def _check_extents(
    space: SearchSpace, extents: dict[str, tuple[Extent, ...]], indices: np.ndarray, record: dict[str, _Sizes]
) -> None:
    """Sizes put together from single groups must be those that a subnet really has."""
    for name, own in extents.items():
        for extent, actual in zip(own, record[name], strict=True):
            index = 0 if extent.dimension is None else indices[space.position(extent.dimension)]
            if extent.values[index] != actual:
                raise NotImplementedError(
                    f"layer {name} of {space.decode(indices)} has size {actual}, but {extent.dimension} alone says "
                    f"{extent.values[index]}: it depends on several search groups"
                )
