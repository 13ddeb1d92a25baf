"""The cost graph of a supernet, read off the built model: the only description of an architecture's resources.

The supernet runs on the meta device, once for each value of each search group, and forward hooks write down the real
shapes of every layer that costs something. Nothing is stated by hand, so a new backbone needs no code here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.core import AdditiveCost, CostTerm, SearchSpace, Subnet

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


@dataclass(frozen=True)
class Extent:
    """A size of a layer, as a function of at most one search group.

    Args:
        dimension: The search group that governs it; None for a constant.
        values: Size for each value of the group, int64; one value for a constant.
    """

    dimension: str | None
    values: np.ndarray


@dataclass(frozen=True)
class LayerSpec:
    """A layer that costs something.

    Args:
        name: Qualified name in the supernet.
        kind: ``"conv"``, ``"depthwise"``, ``"linear"``, ``"norm"`` (learned BN) or ``"pool"`` (the final average
            pooling).
        kernel_area: Positions of the kernel; 1 for linear and pool.
        has_bias: Whether it adds a bias.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        in_area: Positions of the input feature map, H × W.
        out_area: Positions of the output feature map.
    """

    name: str
    kind: str
    kernel_area: int
    has_bias: bool
    in_channels: Extent
    out_channels: Extent
    in_area: Extent
    out_area: Extent

    def tabulate(self, space: SearchSpace, function: Callable[..., np.ndarray]) -> CostTerm:
        """A function of the layer's sizes as a table over the search groups that govern it.

        Args:
            space: The search space.
            function: Called with int64 arrays ``in_channels, out_channels, in_area, out_area`` that broadcast.
        """
        extents = {name: getattr(self, name) for name in ("in_channels", "out_channels", "in_area", "out_area")}
        names = sorted({e.dimension for e in extents.values() if e.dimension is not None}, key=space.position)
        shape = [space.shape[space.position(name)] for name in names]

        def broadcast(extent: Extent) -> np.ndarray:
            axes = [len(extent.values) if name == extent.dimension else 1 for name in names]
            return extent.values.reshape(axes)

        table = function(**{name: broadcast(extent) for name, extent in extents.items()})
        return CostTerm(tuple(names), np.broadcast_to(table, shape))


@dataclass(frozen=True)
class CostGraph:
    """All layers of a supernet over its search space."""

    space: SearchSpace
    layers: tuple[LayerSpec, ...]

    def sum(self, function: Callable[[LayerSpec], CostTerm | None], scale: float = 1.0) -> AdditiveCost:
        """Add up one term a layer; layers for which ``function`` returns None cost nothing."""
        terms = [term for term in map(function, self.layers) if term is not None]
        return AdditiveCost(self.space, terms, scale)


_Sizes = tuple[int, int, int, int]


def read_cost_graph(
    supernet: nn.Module,
    space: SearchSpace,
    active: Callable[[Subnet], AbstractContextManager[None]],
    input_channels: int = 3,
    input_size: int = 224,
) -> CostGraph:
    """Read the layers of a supernet.

    Args:
        supernet: Called with images (1, C, H, W).
        space: Its search space.
        active: Context manager that activates a subnet, :meth:`PSSMutator.active`.
        input_channels: C.
        input_size: H and W where the resolution is not searched; else the batch has the largest resolution.

    Returns:
        The cost graph.

    Raises:
        NotImplementedError: A size depends on several search groups at once.
    """
    resolution = next((dimension.name for dimension in space.dimensions if dimension.kind == "resolution"), None)
    meta_state = {name: torch.empty_like(tensor, device="meta") for name, tensor in _state(supernet)}
    modules: dict[str, nn.Module] = {
        name: m for name, m in supernet.named_modules() if isinstance(m, _COSTED) and getattr(m, "affine", True)
    }

    def probe(indices: np.ndarray) -> dict[str, _Sizes]:
        subnet = space.decode(indices)
        size = input_size if resolution is None else subnet[resolution]
        images = torch.empty(1, input_channels, size, size, device="meta")
        with active(subnet), _recording(modules) as record:
            torch.func.functional_call(supernet, meta_state, (images,))
        return record

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
        graph = CostGraph(space, tuple(_layer_spec(name, modules[name], space, base, moved, together) for name in base))
        generator = np.random.default_rng(0)
        for _ in range(4):
            indices = generator.integers(last + 1)
            _check_extents(graph, indices, probe(indices))
    return graph


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@contextlib.contextmanager
def _without_elementwise(module: nn.Module) -> Iterator[None]:
    skipped = [m for m in module.modules() if isinstance(m, _ELEMENTWISE)]
    for m in skipped:
        m.__dict__["forward"] = lambda x: x
    try:
        yield
    finally:
        for m in skipped:
            del m.__dict__["forward"]


@contextlib.contextmanager
def _recording(modules: dict[str, nn.Module]) -> Iterator[dict[str, _Sizes]]:
    """Write (input channels, output channels, input area, output area) of each module that runs, by its name."""
    record: dict[str, _Sizes] = {}

    def hook(name: str) -> Callable[..., None]:
        def write(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            source = inputs[0]
            if isinstance(module, nn.Linear):
                areas = (1, 1)
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


def _layer_spec(
    name: str,
    module: nn.Module,
    space: SearchSpace,
    base: dict[str, _Sizes],
    moved: dict[str, dict[str, _Sizes]],
    together: list[dict[str, _Sizes]],
) -> LayerSpec:
    def extent(position: int) -> Extent:
        governing = [group for group, record in moved.items() if record[name][position] != base[name][position]]
        if len(governing) > 1:
            raise NotImplementedError(f"a size of layer {name} depends on several search groups: {governing}")
        if not governing:
            return Extent(None, np.array([base[name][position]], dtype=np.int64))
        count = space.shape[space.position(governing[0])]
        return Extent(governing[0], np.array([record[name][position] for record in together[:count]], dtype=np.int64))

    kind, kernel_area = "linear", 1
    if isinstance(module, nn.Conv2d):
        depthwise = 1 < module.groups == module.in_channels == module.out_channels
        if module.groups > 1 and not depthwise:
            raise NotImplementedError(f"layer {name} is a grouped convolution of {module.groups} groups")
        kind, kernel_area = "depthwise" if depthwise else "conv", module.kernel_size[0] * module.kernel_size[1]
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        kind = "pool"
    elif isinstance(module, _BatchNorm):
        kind = "norm"
    has_bias = getattr(module, "bias", None) is not None
    return LayerSpec(name, kind, kernel_area, has_bias, extent(0), extent(1), extent(2), extent(3))


def _check_extents(graph: CostGraph, indices: np.ndarray, record: dict[str, _Sizes]) -> None:
    """Sizes put together from single groups must be those that a subnet really has."""
    for layer in graph.layers:
        extents = (layer.in_channels, layer.out_channels, layer.in_area, layer.out_area)
        for extent, actual in zip(extents, record[layer.name], strict=True):
            index = 0 if extent.dimension is None else indices[graph.space.position(extent.dimension)]
            if extent.values[index] != actual:
                raise NotImplementedError(
                    f"layer {layer.name} of {graph.space.decode(indices)} has size {actual}, but {extent.dimension} "
                    f"alone says {extent.values[index]}: it depends on several search groups"
                )
