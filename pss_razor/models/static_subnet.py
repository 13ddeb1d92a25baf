"""A subnet of a supernet as a network of its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pss_razor.core import ConfigError, Subnet
from pss_razor.models import ConvertedImageClassifier, SubnetMutator
from pss_razor.static import trace_static
from pss_razor.static.trace import make_static


class WithoutResize(nn.Module):
    """The classifier without its input resizer; a static network resizes images to its resolution by itself."""

    def __init__(self, architecture: Any) -> None:
        super().__init__()
        self.backbone: nn.Module = architecture.backbone
        self.neck: nn.Module = architecture.neck if architecture.neck is not None else nn.Identity()
        self.head: nn.Module = architecture.head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        return self.head(self.neck(self.backbone(images)))


def to_plain(network: nn.Module) -> nn.Module:
    """A copy of the active subnet of a converted network with plain layers; a graph of torch.fx of any operations."""
    return make_static(copy.deepcopy(network).eval())


def static_subnet(
    supernet: nn.Module, mutator: SubnetMutator, subnet: Subnet, device: str, batch: int, input_size: int | None
) -> tuple[nn.Module, Tensor]:
    """A subnet with the supernet's weights, without the input resizer.

    A converted network need not be one that can be exported: it stays a graph of torch.fx, as its parts are.

    Args:
        supernet: The supernet, a classifier.
        mutator: Its mutator.
        subnet: The subnet.
        device: Where to put it.
        batch: Images N.
        input_size: Side of the images where the resolution is not searched.

    Returns:
        The network and random images (N, 3, H, W) of its resolution.

    Raises:
        ConfigError: The resolution is not searched, and ``input_size`` is None.
    """
    size = subnet.get("resolution", input_size)
    if size is None:
        raise ConfigError("the supernet has no resolutions to search; set model.input_size to the side of its images")
    with mutator.active(subnet):
        own = WithoutResize(supernet)
        net = to_plain(own) if isinstance(supernet, ConvertedImageClassifier) else trace_static(own, size)
    return net.to(device), torch.randn(batch, 3, size, size, device=device)
