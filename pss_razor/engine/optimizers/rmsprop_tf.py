"""RMSprop as TensorFlow defines it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from pss_razor.core import ConfigError
from pss_razor.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class RMSpropTF(torch.optim.Optimizer):
    """RMSprop with which EfficientNets and Cream's models are trained.

    Unlike in torch's, the average of squares starts at 1 instead of 0, ``eps`` is inside the root, and the learning
    rate scales what enters the momentum instead of what leaves it, so that a new learning rate acts gradually.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        alpha: Weight of the old average of squares.
        eps: Added to the average of squares.
        weight_decay: L2 penalty, added to the gradient.
        momentum: Weight of the old step.

    Example:
        ``optimizer=dict(type='RMSpropTF', lr=0.064, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5)``
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.9,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        options = dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        for name, value in options.items():
            if value < 0:
                raise ConfigError(f"RMSpropTF: {name} = {value} must not be negative")
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["square_avg"] = torch.ones_like(parameter)
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                average, momentum = state["square_avg"], state["momentum_buffer"]
                average.lerp_(gradient.square(), 1 - group["alpha"])
                root = average.add(group["eps"]).sqrt_()
                momentum.mul_(group["momentum"]).addcdiv_(gradient, root, value=group["lr"])
                parameter.sub_(momentum)
        return loss
