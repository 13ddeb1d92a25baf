"""Any network as a backbone whose widths and depths are searched."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pss_razor.conversion import Supernet, convert
from pss_razor.conversion.propagate import REGULARISER_NAMES
from pss_razor.core import ConfigError, Dimension, Subnet
from pss_razor.models.activations import LeanReLU6
from pss_razor.registry import MODELS

from mmengine.model import BaseModule
from mmrazor.models.mutables import OneShotMutableValue


@MODELS.register_module()
class ConvertedNetwork(BaseModule):
    """A network of torchvision, timm or one's own, converted by :func:`pss_razor.convert`; its output are the logits.

    Args:
        network: ``type="torchvision.NAME"``, ``"timm.NAME"`` or ``"package.module.function"``, and the arguments of
            what builds it, such as ``weights="IMAGENET1K_V1"``. Or a supernet, for which all else is settled.
        image_size: Side of the images in pixels, of the largest resolution.
        num_classes: Classes; if the network has not as many, its last linear layer is made anew.
        resolutions: Sides of the images in pixels that it will be run on.
        width_range: See :func:`pss_razor.convert`.
        divisor: See :func:`pss_razor.convert`.
        depth: See :func:`pss_razor.convert`.
        sort: See :func:`pss_razor.convert`.

    Example:
        ``backbone=dict(type='ConvertedNetwork', network=dict(type='torchvision.resnet18'), image_size=224)``

    Raises:
        ConfigError: The network cannot be built or converted.
    """

    def __init__(
        self,
        network: Mapping[str, Any] | Supernet,
        image_size: int | None = None,
        num_classes: int | None = None,
        resolutions: Sequence[int] | None = None,
        width_range: tuple[float, float] = (0.5, 1.0),
        divisor: int = 8,
        depth: bool = True,
        sort: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, Supernet):
            if image_size is None:
                raise ConfigError("ConvertedNetwork: image_size, the side of the images in pixels, is missing")
            model = build_network(network)
            if num_classes is not None:
                _replace_classifier(model, num_classes)
            images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
            network = convert(
                model, images, width_range=width_range, divisor=divisor, depth=depth, sort=sort, resolutions=resolutions
            )
        for module in network.modules():
            if type(module) is nn.ReLU6:
                module.__class__ = LeanReLU6  # the same, in less time and memory
        self.supernet = network
        dimensions = network.space.dimensions
        # The classifier around this resizes images.
        self.resolutions = next((list(d.values) for d in dimensions if d.kind == "resolution"), None)
        self._resolution = {} if self.resolutions is None else {"resolution": self.resolutions[-1]}
        self.dimensions = [d for d in dimensions if d.kind != "resolution"]
        self.choices = nn.ModuleList(_Choice(dimension) for dimension in self.dimensions)

    def on_activate(self, subnet: Subnet) -> None:
        """Let :meth:`forward` run a subnet; called by ``SubnetMutator`` when all choices are made."""
        own = {dimension.name: subnet[dimension.name] for dimension in self.dimensions}
        self.supernet.activate(own | self._resolution)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Logits (N, classes) of images (N, 3, H, W) of the active resolution."""
        return (self.supernet.network(images),)

    def to_static_op(self) -> nn.Module:
        """The active subnet as a plain network."""
        return _StaticNetwork(self.supernet.static(self.supernet.active_subnet))


class _StaticNetwork(nn.Module):
    """Gives logits as a backbone does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Where the supernet has it, so that tensors have the same names.
        self.supernet = nn.Module()
        self.supernet.network = _without_regularisers(network)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        network: Any = self.supernet.network
        return (network(images),)


class _Choice(OneShotMutableValue):
    """The mutable of a dimension; the network follows by :meth:`ConvertedNetwork.on_activate`."""

    def __init__(self, dimension: Dimension) -> None:
        super().__init__(list(dimension.values), alias=dimension.name)
        self.dimension = dimension


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """A network by the name of what builds it.

    Args:
        config: ``type`` and arguments, see :class:`ConvertedNetwork`.

    Raises:
        ConfigError: There is no such network, or it does not take the arguments.
    """
    arguments = dict(config)
    name = str(arguments.pop("type", ""))
    package, _, short = name.partition(".")
    build: Callable[..., Any]
    try:
        if package == "torchvision" and "." not in short:
            import torchvision

            build = torchvision.models.get_model_builder(short)
        elif package == "timm" and "." not in short:
            timm = importlib.import_module("timm")
            arguments, build = {"model_name": short, **arguments}, timm.create_model
        else:
            module, _, function = name.rpartition(".")
            build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"network type = {name!r} is not found ({error}); it is torchvision.NAME, timm.NAME or package.function"
        ) from error
    try:
        return build(**arguments)
    except OSError as error:
        raise ConfigError(
            f"the weights of {name} cannot be loaded with {arguments} ({error}); offline, put their file into "
            f"{torch.hub.get_dir()}/checkpoints, or set TORCH_HOME. To test or to export a checkpoint, which has "
            "weights of its own, model.architecture.network.weights=None will do"
        ) from error
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"network {name} cannot be built with {arguments}: {error}") from error


def _replace_classifier(model: nn.Module, num_classes: int) -> None:
    """Make the last linear layer (or 1 × 1 conv, SqueezeNet) anew, unless it is for so many classes."""
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not found:
        raise ConfigError(f"{type(model).__name__} has no linear layer to make anew for {num_classes} classes")
    name, last = found[-1]
    if num_classes == (last.out_features if isinstance(last, nn.Linear) else last.out_channels):
        return
    bias = last.bias is not None
    new: nn.Module
    if isinstance(last, nn.Linear):
        new = nn.Linear(last.in_features, num_classes, bias)
    else:
        new = nn.Conv2d(last.in_channels, num_classes, 1, bias=bias)
    model.set_submodule(name, new)


def _without_regularisers(network: nn.Module) -> nn.Module:
    for name, module in list(network.named_modules()):
        if type(module).__name__ in REGULARISER_NAMES:
            network.set_submodule(name, nn.Identity())
    return network
