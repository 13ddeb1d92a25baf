"""The cost graph of a supernet: the only description of an architecture's resources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pss_razor.core.space.cost import AdditiveCost, CostTerm, ProductTerm
from pss_razor.core.space.search_space import SearchSpace


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
class Concatenation:
    """The channels of several tensors joined: a size that is a sum of sizes.

    Args:
        parts: What is added up.
    """

    parts: tuple[Extent, ...]


@dataclass(frozen=True)
class LayerSpec:
    """A layer that costs something.

    Args:
        name: Qualified name in the supernet.
        kind: ``"conv"``, ``"depthwise"``, ``"linear"``, ``"norm"`` (weight and bias a channel), ``"scale"`` (other
            parameters a channel, ``kernel_area`` of them), ``"pool"`` (the final average pooling), ``"product"`` (what
            is multiplied with no parameters of its own, as in attention), ``"fixed"``: a part of any kind that is not
            searched, whose MACs are ``in_area``, and its parameters ``out_channels``.
        kernel_area: Positions of the kernel; 1 for linear, norm and pool.
        has_bias: Whether it adds a bias.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        in_area: Positions of the input feature map, H × W.
        out_area: Positions of the output feature map.
        runs: 1 or 0 for each choice of an op: whether the layer runs; None if it always does.
    """

    name: str
    kind: str
    kernel_area: int
    has_bias: bool
    in_channels: Extent | Concatenation
    out_channels: Extent
    in_area: Extent
    out_area: Extent
    runs: Extent | None = None

    @property
    def is_searched(self) -> bool:
        """Whether a search group governs its channels, or whether it runs."""
        inputs = self.in_channels.parts if isinstance(self.in_channels, Concatenation) else (self.in_channels,)
        return self.runs is not None or any(size.dimension is not None for size in (*inputs, self.out_channels))

    def tabulate(self, space: SearchSpace, function: Callable[..., np.ndarray]) -> list[CostTerm | ProductTerm]:
        """A function of the layer's sizes as tables over the search groups that govern it, which add up to it.

        Args:
            space: The search space.
            function: Called with int64 arrays ``in_channels, out_channels, in_area, out_area`` that broadcast; a
                straight line as a function of ``in_channels`` where they are a concatenation.
        """
        sizes = {"out_channels": self.out_channels, "in_area": self.in_area, "out_area": self.out_area}
        if self.runs is not None:
            sizes["runs"] = self.runs

        def running(runs: np.ndarray | int = 1, **sizes: np.ndarray) -> np.ndarray:
            return runs * function(**sizes)

        if isinstance(self.in_channels, Extent):
            return [tabulate(space, {"in_channels": self.in_channels, **sizes}, running)]
        fixed = sum(int(part.values[0]) for part in self.in_channels.parts if part.dimension is None)
        searched = tuple((part.dimension, part.values) for part in self.in_channels.parts if part.dimension is not None)
        at_fixed, further = (
            tabulate(space, {"in_channels": Extent(None, np.array([channels])), **sizes}, running)
            for channels in (fixed, fixed + 1)
        )
        return [at_fixed, ProductTerm(searched, CostTerm(further.dimensions, further.table - at_fixed.table))]


def multiply_accumulates(layer: LayerSpec, in_channels: np.ndarray, out_channels: np.ndarray, in_area: np.ndarray,
                         out_area: np.ndarray) -> np.ndarray:  # fmt: skip
    """MACs of one layer, batch 1: conv and linear without bias, the final average pooling as its input elements."""
    if layer.kind == "fixed":
        return in_area
    if layer.kind == "pool":
        return in_channels * in_area
    if layer.kind == "depthwise":
        return out_channels * layer.kernel_area * out_area
    return in_channels * out_channels * layer.kernel_area * out_area


def count_parameters(layer: LayerSpec, in_channels: np.ndarray, out_channels: np.ndarray, **areas: np.ndarray
                     ) -> np.ndarray:  # fmt: skip
    """Learned parameters of the active channels of one layer."""
    if layer.kind == "fixed":
        return out_channels
    if layer.kind == "norm":
        return 2 * out_channels
    if layer.kind == "scale":
        return out_channels * layer.kernel_area
    fan_in = 1 if layer.kind == "depthwise" else in_channels
    return out_channels * (fan_in * layer.kernel_area + int(layer.has_bias))


class BlockGeometry(NamedTuple):
    """What the latency of a block depends on; None where a kind of block has no such size.

    Attributes:
        block_type: Kind of block, see :class:`BlockSpec`.
        in_size: Side of the input feature map in pixels.
        cin: Input channels.
        cout: Output channels.
        cmid: Hidden channels; None for kinds of block in which they are always ``cin``, such as a separable conv.
        kernel_size: Side of the kernel.
        stride: Stride.
        padding: Padding.
        widths: Of a converted network's block, all widths that it depends on; its kind says the rest.
    """

    block_type: str
    in_size: int
    cin: int | None
    cout: int | None
    cmid: int | None
    kernel_size: int | None
    stride: int | None
    padding: int | None
    widths: tuple[int, ...] | None = None

    def __str__(self) -> str:
        sizes = ", ".join(f"{name}={value}" for name, value in self._asdict().items() if value is not None)
        return f"block({sizes})"


@dataclass(frozen=True)
class MeasuredBlock(ABC):
    """A part of the network whose latency is measured as one.

    Args:
        name: Qualified name in the supernet.
    """

    name: str

    @abstractmethod
    def groups(self, space: SearchSpace) -> tuple[str, ...]:
        """The search groups that govern it, in the order of the space."""

    @abstractmethod
    def geometries(self, space: SearchSpace, narrowest: bool = False) -> np.ndarray:
        """Every geometry that the block can have.

        Args:
            space: The search space.
            narrowest: Whether :attr:`concatenated` have their smallest width; else their largest.

        Returns:
            An array of :class:`BlockGeometry` with one axis for each of :meth:`groups`; None where the block does not
            run.
        """

    @property
    @abstractmethod
    def extents(self) -> tuple[Extent, ...]:
        """Side of the input, then the widths, of which latency is about linear."""

    @property
    def concatenated(self) -> tuple[Extent, ...]:
        """Widths side by side in its input, in whose sum alone the latency is taken to be linear."""
        return ()

    def variants(self, space: SearchSpace) -> list[tuple[dict[str, int], np.ndarray]]:
        """All geometries that are measured: with the largest and, if there are any, the smallest concatenated widths.

        Returns:
            Value index of each search group that is fixed, and :meth:`geometries`.
        """
        found: list[tuple[dict[str, int], np.ndarray]] = [({}, self.geometries(space))]
        if self.concatenated:
            fixed = {extent.dimension: 0 for extent in self.concatenated if extent.dimension is not None}
            found.append((fixed, self.geometries(space, narrowest=True)))
        return found

    def coordinates(self, space: SearchSpace) -> list[np.ndarray | None]:
        """Along each axis of :meth:`geometries`, what latency is about linear in: area, or channels.

        None for the choice of an op, where there is nothing to interpolate.
        """
        in_size, *widths = self.extents
        sizes = {extent.dimension: extent.values for extent in widths}
        if in_size.dimension is not None:
            sizes[in_size.dimension] = in_size.values**2
        return [sizes.get(name) for name in self.groups(space)]


@dataclass(frozen=True)
class BlockSpec(MeasuredBlock):
    """A block of a backbone, or a layer outside of any.

    Args:
        name: Qualified name in the supernet.
        block_type: What the backbone calls it (attribute ``latency_block`` of the module), the class of an op's
            candidate, else ``"Conv2d"``, ``"DepthwiseConv2d"`` or ``"Linear"``.
        kernel_size: Side of the kernel, of a candidate the largest; None for other blocks and linear.
        stride: Stride; None for linear.
        padding: Padding; None unless it is a single conv.
        in_size: Side of the input feature map in pixels; 1 for linear.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        mid_channels: Hidden channels, the input channels of the last conv inside; None for a single layer, and for a
            kind of block in which they are always the input channels.
        runs: See :class:`LayerSpec`.
    """

    block_type: str
    kernel_size: int | None
    stride: int | None
    padding: int | None
    in_size: Extent
    in_channels: Extent
    out_channels: Extent
    mid_channels: Extent | None
    runs: Extent | None = None

    @property
    def extents(self) -> tuple[Extent, ...]:
        """See :class:`MeasuredBlock`."""
        return self.in_size, self.in_channels, self.out_channels

    @property
    def _governing(self) -> dict[str, Extent]:
        names = ("in_size", "in_channels", "out_channels", "mid_channels", "runs")
        return {name: extent for name in names if (extent := getattr(self, name)) is not None}

    def groups(self, space: SearchSpace) -> tuple[str, ...]:
        """See :class:`MeasuredBlock`."""
        return _groups(space, self._governing)

    def geometries(self, space: SearchSpace, narrowest: bool = False) -> np.ndarray:
        """See :class:`MeasuredBlock`."""
        fixed = (self.kernel_size, self.stride, self.padding)

        def build(
            in_size: int, in_channels: int, out_channels: int, mid_channels: int | None = None, runs: int = 1
        ) -> BlockGeometry | None:
            if not runs:
                return None
            return BlockGeometry(self.block_type, in_size, in_channels, out_channels, mid_channels, *fixed)

        return _tabulate_geometries(space, self._governing, build)


@dataclass(frozen=True)
class PartSpec(MeasuredBlock):
    """A part of a converted network.

    Args:
        name: See :class:`MeasuredBlock`.
        kinds: What it consists of, at each resolution; one for all resolutions if it is the same.
        in_size: Side of its input in pixels.
        widths: Every width that it depends on.
        concatenated: See :class:`MeasuredBlock`; their sum is one more width.
        runs: See :class:`LayerSpec`.
    """

    kinds: tuple[str, ...]
    in_size: Extent
    widths: tuple[Extent, ...]
    concatenated: tuple[Extent, ...] = ()
    runs: Extent | None = None

    @property
    def extents(self) -> tuple[Extent, ...]:
        """See :class:`MeasuredBlock`."""
        return self.in_size, *self.widths

    @property
    def _governing(self) -> dict[str, Extent]:
        kind = Extent(self.in_size.dimension, np.arange(len(self.kinds)))
        extents = {"kind": kind, "in_size": self.in_size}
        extents |= {f"width{number}": width for number, width in enumerate(self.widths)}
        return extents if self.runs is None else {**extents, "runs": self.runs}

    def groups(self, space: SearchSpace) -> tuple[str, ...]:
        """See :class:`MeasuredBlock`."""
        return _groups(space, self._governing)

    def geometries(self, space: SearchSpace, narrowest: bool = False) -> np.ndarray:
        """See :class:`MeasuredBlock`."""
        end = 0 if narrowest else -1
        total = (sum(int(extent.values[end]) for extent in self.concatenated),) if self.concatenated else ()

        def build(kind: int, in_size: int, runs: int = 1, **widths: int) -> BlockGeometry | None:
            if not runs:
                return None
            sizes = (*widths.values(), *total)
            return BlockGeometry(self.kinds[kind], in_size, None, None, None, None, None, None, sizes)

        return _tabulate_geometries(space, self._governing, build)


def _tabulate_geometries(
    space: SearchSpace, extents: dict[str, Extent], build: Callable[..., BlockGeometry | None]
) -> np.ndarray:
    """What ``build`` makes of each combination of the values of extents."""

    def build_all(**sizes: np.ndarray) -> np.ndarray:
        arrays = np.broadcast_arrays(*sizes.values())
        result = np.empty(arrays[0].shape, dtype=object)
        for position, key in enumerate(zip(*(array.ravel().tolist() for array in arrays), strict=True)):
            result.flat[position] = build(**dict(zip(sizes, key, strict=True)))
        return result

    return tabulate(space, extents, build_all).table


def _groups(space: SearchSpace, extents: dict[str, Extent]) -> tuple[str, ...]:
    """The search groups that govern extents, in the order of the space."""
    groups = {extent.dimension for extent in extents.values() if extent.dimension is not None}
    return tuple(sorted(groups, key=space.position))


def tabulate(space: SearchSpace, extents: dict[str, Extent], function: Callable[..., Any]) -> CostTerm:
    """A function of extents as a table over the search groups that govern them, in the order of the space."""
    names = _groups(space, extents)
    shape = [space.shape[space.position(name)] for name in names]

    def broadcast(extent: Extent) -> np.ndarray:
        return extent.values.reshape([len(extent.values) if name == extent.dimension else 1 for name in names])

    table = function(**{name: broadcast(extent) for name, extent in extents.items()})
    return CostTerm(names, np.broadcast_to(table, shape))


@dataclass(frozen=True)
class CostGraph:
    """All layers of a supernet over its search space, and the blocks that its latency is the sum of."""

    space: SearchSpace
    layers: tuple[LayerSpec, ...]
    blocks: tuple[MeasuredBlock, ...]

    @property
    def geometries(self) -> list[BlockGeometry]:
        """All that the blocks can have, each once."""
        arrays = [geometries for block in self.blocks for _, geometries in block.variants(self.space)]
        return list(dict.fromkeys(geometry for own in arrays for geometry in own.flat if geometry is not None))

    def sum(
        self, function: Callable[[LayerSpec], Sequence[CostTerm | ProductTerm]], scale: float = 1.0
    ) -> AdditiveCost:
        """Add up the terms of all layers; those for which ``function`` returns none cost nothing."""
        return AdditiveCost(self.space, [term for layer in self.layers for term in function(layer)], scale)

    @property
    def flops(self) -> AdditiveCost:
        """FLOPs of every subnet, millions of MACs of one image. A norm folds into the conv before it."""
        return self._sum(multiply_accumulates, {"norm", "scale"})

    @property
    def params(self) -> AdditiveCost:
        """Learned parameters of every subnet, in millions."""
        return self._sum(count_parameters, {"pool", "product"})

    def _sum(self, count: Callable[..., np.ndarray], without: set[str]) -> AdditiveCost:
        def terms(layer: LayerSpec) -> list[CostTerm | ProductTerm]:
            return [] if layer.kind in without else layer.tabulate(self.space, partial(count, layer))

        return self.sum(terms, scale=1e-6)
