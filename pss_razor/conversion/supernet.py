"""A converted network, of which a subnet is active."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pss_razor.conversion.groups import ChannelGroup
from pss_razor.conversion.latency_parts import RunnablePart
from pss_razor.conversion.layers import PartialLayer, ResidualBlock
from pss_razor.conversion.operations import PartialOperation
from pss_razor.conversion.propagate import Propagation
from pss_razor.core import ActiveSubnetMixin, AdditiveCost, Subnet
from pss_razor.core.cost_graph import CostGraph, Extent

_DRAWS = 20_000


class Supernet(ActiveSubnetMixin, nn.Module):
    """A supernet that :func:`convert` has made of a network.

    Attributes:
        num_outputs: Classes.
        image_shape: (C, H, W) of the images, of the largest resolution.
        space: The search space.
        costs: ``"flops"``, in millions of multiply-accumulates of one image, and ``"params"``, in millions, of every
            subnet.
        reasons: Why groups of channels are not searched -> the layers that make them.
        active_subnet: The subnet that :meth:`forward` runs.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        graph: CostGraph,
        extents: Mapping[ChannelGroup, Extent],
        blocks: Sequence[Sequence[ResidualBlock]],
        partial: Sequence[PartialLayer | PartialOperation],
        propagation: Propagation,
        num_outputs: int,
        image_shape: Sequence[int],
        latency_parts: Mapping[str, RunnablePart],
    ) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.image_shape = tuple(image_shape)
        self.network = network
        self.graph = graph
        self.space = graph.space
        self.costs: dict[str, AdditiveCost] = {"flops": graph.flops, "params": graph.params}
        self._groups = {group: (extent.dimension, int(extent.values[-1])) for group, extent in extents.items()}
        self._blocks = {f"depth{n}": list(run) for n, run in enumerate(blocks) if f"depth{n}" in self.space.names}
        self._partial = list(partial)
        self._latency_parts = dict(latency_parts)
        self.reasons = _reasons(propagation)
        self.activate(self.space.largest)

    def activate(self, subnet: Mapping[str, Any]) -> None:
        """Let :meth:`forward` run a subnet.

        Raises:
            ConfigError: It is not in the search space.
        """
        self.space.encode([subnet])
        widths = self._widths(subnet)
        for module in self._partial:
            module.update(widths)
        for name, run in self._blocks.items():
            for index, block in enumerate(run):
                block.skipped = index >= subnet[name]
        self._active = Subnet(subnet)

    def _widths(self, subnet: Mapping[str, Any]) -> dict[ChannelGroup, int]:
        return {group: subnet[name] if name is not None else full for group, (name, full) in self._groups.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) of the largest resolution; they are resized to the subnet's."""
        size = self.active_subnet.get("resolution")
        if size is not None and images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=True)
        return self.network(images)

    def static(self, subnet: Mapping[str, Any]) -> nn.Module:
        """A subnet as a plain network with tensors of its own; it takes images of the subnet's resolution."""
        with self.active(subnet), torch.no_grad():
            return _to_static(copy.deepcopy(self.network))

    def static_part(self, name: str, subnet: Mapping[str, Any], batch: int = 1) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """A part of a subnet whose latency is measured as one, as a plain network, and random inputs.

        Args:
            name: Of one of ``graph.blocks``.
            subnet: The subnet, in which the part runs.
            batch: Images.
        """
        part = self._latency_parts[name]
        with self.active(subnet), torch.no_grad():
            module = _to_static(copy.deepcopy(fx.GraphModule(dict(part.modules), part.graph)))
        return module, tuple(own.make(subnet.get("resolution"), batch, self._widths(subnet)) for own in part.inputs)

    def summary(self) -> str:
        """What is searched, what is not and why, and the smallest, the median and the largest subnet."""
        lines = [
            f"{self.network.__class__.__name__}: {len(self.space)} dimensions, {float(self.space.size):.3g} subnets"
        ]
        for dimension in self.space.dimensions:
            values = dimension.values
            shown = f"{values[0]} to {values[-1]}" if len(values) > 4 else ", ".join(map(str, values))
            lines.append(f"  {dimension.name} ({dimension.kind}): {len(values)} choices, {shown}")
        drawn = self.space.draw(_DRAWS, np.random.default_rng(0))
        ends = self.space.encode([self.space.smallest, self.space.largest])
        for name, unit in (("flops", "MFLOPs"), ("params", "M params")):
            low, high = self.costs[name](ends)
            median = np.median(self.costs[name](drawn))
            lines.append(f"{unit}: smallest {low:.5g}, median {median:.5g}, largest {high:.5g}")
        lines.append(f"searched: {self.searched_share:.1%} of the FLOPs")
        lines += [f"not searched: {reason} ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
                  for reason, names in self.reasons.items()]  # fmt: skip
        return "\n".join(lines)

    @property
    def searched_share(self) -> float:
        """Share of the largest subnet's FLOPs that is in layers of which a width, or whether they run, is searched."""
        full = {True: 0.0, False: 0.0}
        for layer in self.graph.layers:
            own = CostGraph(self.space, (layer,), ()).flops
            full[layer.is_searched] += float(own(self.space.encode([self.space.largest]))[0])
        return full[True] / max(sum(full.values()), 1e-12)


def _to_static(module: nn.Module) -> nn.Module:
    if (to_static_op := getattr(module, "to_static_op", None)) is not None:
        return to_static_op()
    if isinstance(module, ResidualBlock):
        return nn.Identity() if module.skipped else _to_static(module.body)
    for name, child in list(module.named_children()):
        static = _to_static(child)
        if static is not child:
            setattr(module, name, static)
    return module


def _reasons(propagation: Propagation) -> dict[str, list[str]]:
    """Why groups are not searched -> their names."""
    reasons: dict[str, list[str]] = {}
    for group in propagation.groups:
        if group.frozen is not None:
            reasons.setdefault(group.frozen, []).append(group.name)
    return reasons
