"""An image classifier that any network becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pss_razor.conversion import Supernet
from pss_razor.core import ConfigError, SearchSpace, Subnet
from pss_razor.core.cost_graph import CostGraph
from pss_razor.models.backbones import ConvertedNetwork
from pss_razor.models.classifiers.slimmable_image_classifier import SlimmableImageClassifier
from pss_razor.registry import MODELS


@MODELS.register_module()
class ConvertedImageClassifier(SlimmableImageClassifier):
    """A network of torchvision, timm or one's own whose widths, depths and resolution are searched.

    It starts as the network, weights and all; the largest subnet is the network. What is searched is said by
    :meth:`summary`, and in the log of a training.

    Args:
        network: See :class:`ConvertedNetwork`. Of a supernet, only ``head`` and ``**kwargs`` are asked besides.
        resolutions: Input resolutions in pixels to choose from; None: the resolution is not searched.
        input_size: Side of the images in pixels, where the resolution is not searched.
        num_classes: Classes; None: those of the network.
        width_range: Smallest and largest share of a layer's channels.
        divisor: Widths are multiples of it.
        depth: Whether residual blocks may be skipped.
        sort: Order of the channels: ``"l1"``, ``"bn"`` or None.
        head: Loss and top-k; config of an ``mmcls.ClsHead``.
        **kwargs: Of ``SearchableImageClassifier``: ``init_cfg``, …

    Example:
        ``architecture=dict(type='ConvertedImageClassifier', network=dict(type='torchvision.resnet18',
        weights='IMAGENET1K_V1'), resolutions=[128, 160, 192, 224], sort='l1')``
    """

    def __init__(
        self,
        network: Mapping[str, Any] | Supernet,
        resolutions: list[int] | None = None,
        input_size: int | None = None,
        num_classes: int | None = None,
        width_range: tuple[float, float] = (0.5, 1.0),
        divisor: int = 8,
        depth: bool = True,
        sort: str | None = None,
        head: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        image_size = max(resolutions) if resolutions else input_size
        if not isinstance(network, Supernet) and image_size is None:
            raise ConfigError("ConvertedImageClassifier: give resolutions, or input_size where they are not searched")
        backbone = ConvertedNetwork(
            network,
            image_size=image_size,
            num_classes=num_classes,
            resolutions=resolutions,
            width_range=width_range,
            divisor=divisor,
            depth=depth,
            sort=sort,
        )
        loss = dict(type="mmcls.CrossEntropyLoss")
        own_head = dict(type="mmcls.ClsHead", loss=loss) | dict(head or {})
        super().__init__(resolutions=backbone.resolutions, backbone=backbone, neck=None, head=own_head, **kwargs)
        # What the data are checked against.
        self.head.num_classes = backbone.supernet.num_outputs

    def summary(self) -> str:
        """See :meth:`pss_razor.conversion.Supernet.summary`."""
        return self.backbone.supernet.summary()

    def original_network(self) -> nn.Module:
        """The network that was converted, with tensors of its own, as its weights are now.

        Its input are images of the largest resolution, its output logits (N, classes).
        """
        return self.backbone.supernet.static(self.backbone.supernet.space.largest)

    def cost_graph(self, space: SearchSpace) -> CostGraph:
        """The layers and parts of the network over a search space."""
        graph = self.backbone.supernet.graph
        return CostGraph(space, graph.layers, graph.blocks)

    def static_part(self, name: str, subnet: Subnet, batch: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """See :meth:`pss_razor.conversion.Supernet.static_part`."""
        return self.backbone.supernet.static_part(name, subnet, batch)
