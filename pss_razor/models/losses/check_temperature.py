"""The temperature of a distillation loss."""

from __future__ import annotations

import math

from torch import nn

from pss_razor.core import ConfigError


def check_temperature(loss: nn.Module, temperature: float) -> float:
    """The temperature, if it is one.

    Raises:
        ConfigError: It is not positive and finite.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(f"{type(loss).__name__}: temperature = {temperature} must be above 0; 1 leaves logits alone")
    return temperature
