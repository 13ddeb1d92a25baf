"""A subnet of a converted network, of whatever operations."""

from __future__ import annotations

from torch import Tensor, nn

from pss_razor.static.static_net import resize_images


class PlainNetwork(nn.Module):
    """A plain network that resizes images to its resolution, as a :class:`~pss_razor.static.StaticNet` does.

    It may consist of what a static network may not: ONNX and ``.pt2`` files say by themselves what they consist of.

    Args:
        network: Takes images (N, 3, H, W) of the resolution, returns logits (N, classes).
        resolution: In pixels.
    """

    def __init__(self, network: nn.Module, resolution: int) -> None:
        super().__init__()
        self.network = network
        self.resolution = resolution

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W) of any size."""
        return self.network(resize_images(images, self.resolution))
