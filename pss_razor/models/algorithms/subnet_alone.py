"""One subnet of a search space, trained alone."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from pss_razor import compat
from pss_razor.core import ConfigError, SearchSpace, Subnet
from pss_razor.models.algorithms.pss import PSS
from pss_razor.models.dynamic_ops import SlicedConv2d
from pss_razor.registry import MODELS

from mmengine.optim import OptimWrapper


@MODELS.register_module()
class SubnetAlone(PSS):
    """Train one subnet as a network of its own, on the labels: what a supernet's subnet is compared with.

    All else is as for the supernet: data, schedule, optimizer, BN calibration, test. The search space is that of this
    one subnet, which is therefore the largest, the smallest, and the only one of its target; targets are those of the
    whole space. Sliced convs start as those of a network with these channels; the channels beyond are never used.

    Args:
        subnet: ``"largest"``, ``"smallest"``, or search-group name -> choice.
        **kwargs: Of :class:`PSS`.

    Example:
        ``model=dict(type='SubnetAlone', subnet='smallest', architecture=…, mutator=…, estimators=…, constraints=…)``

    Raises:
        ConfigError: The subnet is not in the search space.
    """

    _space: SearchSpace | None = None

    def __init__(self, subnet: str | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.subnet = self._find(subnet)
        dimensions = [
            dataclasses.replace(d, values=(self.subnet[d.name],), probabilities=None, used_from=None)
            for d in self.space.dimensions
        ]
        self._space = SearchSpace(dimensions)
        for name in ("cost_graph", "costs"):  # those of the whole space
            self.__dict__.pop(name, None)
        self.mutator.activate(self.subnet)

    def _find(self, subnet: str | Mapping[str, Any]) -> Subnet:
        """The subnet that is meant, as one of the search space."""
        if isinstance(subnet, str):
            if subnet not in ("largest", "smallest"):
                raise ConfigError(f"model.subnet = {subnet!r}: give 'largest', 'smallest', or a choice of each group")
            return getattr(self.space, subnet)
        space = self.space
        return space.decode(space.canonical(space.encode([Subnet(subnet)]))[0])

    @property
    def space(self) -> SearchSpace:
        """The search space of the one subnet."""
        return super().space if self._space is None else self._space

    def init_weights(self) -> None:
        """Initialise as a network that has the subnet's channels alone."""
        super().init_weights()
        with torch.no_grad():
            for module in self.architecture.modules():
                if isinstance(module, SlicedConv2d):
                    # std = sqrt(2 / (k² · cout)), as the backbones do for all channels
                    nn.init.kaiming_normal_(module.get_dynamic_params()[0], mode="fan_out", nonlinearity="relu")

    def train_step(
        self,
        data: dict | tuple | list,
        optim_wrapper: OptimWrapper,
        forward: Callable[..., Tensor] | None = None,
        no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> dict[str, Tensor]:
        """One iteration of the subnet; see :meth:`PSS.train_step`.

        Returns:
            Scalars to log: ``loss``, accuracies if the head reports them, and ``score``, minus the loss.
        """
        batch: Any = self.data_preprocessor(data, True)
        self.mutator.activate(self.subnet)
        with optim_wrapper.optim_context(self):
            logits = (forward or self)(batch["inputs"], batch["data_samples"], mode="tensor")
        head_losses = compat.head_losses(self.architecture.head, logits.float(), batch["data_samples"])
        loss, log_vars = self.parse_losses(head_losses)
        optim_wrapper.update_params(loss)
        self.passes_of_step = [(self.subnet, 3)]
        metrics = {name: value for name, value in log_vars.items() if "loss" not in name}
        return {"loss": loss.detach(), "score": -loss.detach(), **metrics}
