"""A subnet of a supernet as a network of its own, to be timed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pss_razor.core import ConfigError, Subnet
from pss_razor.deploy import StaticNet, trace_static
from pss_razor.engine.export import WithoutResize
from pss_razor.models import PSSMutator


def static_subnet(
    supernet: nn.Module, mutator: PSSMutator, subnet: Subnet, device: str, batch: int, input_size: int | None
) -> tuple[StaticNet, Tensor]:
    """A subnet with the supernet's weights, without the input resizer.

    Args:
        supernet: The supernet, a classifier.
        mutator: Its mutator.
        subnet: The subnet.
        device: Where to put it.
        batch: Images N.
        input_size: Side of the images where the resolution is not searched.

    Returns:
        The network and random images (N, 3, H, W) of its resolution.
    """
    size = subnet.get("resolution", input_size)
    if size is None:
        raise ConfigError("the supernet has no resolutions to search; set model.input_size to the side of its images")
    with mutator.active(subnet):
        net = trace_static(WithoutResize(supernet), size).to(device)
    return net, torch.randn(batch, 3, size, size, device=device)
