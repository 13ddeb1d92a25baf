"""When the entries of all pools are scored anew, and on how many images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pss_razor.core.errors import ConfigError
from pss_razor.core.scalars import is_number


@dataclass(frozen=True)
class Rescoring:
    """One time at which entries and new subnets are scored on the same held-out images, and the best kept.

    Args:
        at: Share of the training that is over, in [0, 1).
        images: How many images.
        fresh: How many new subnets are scored beside the entries of a pool, drawn conditional on its target.
        keep: How many entries each pool keeps; None keeps as many as it may have.
    """

    at: float
    images: int
    fresh: int = 0
    keep: int | None = None

    def __post_init__(self) -> None:
        if not (is_number(self.at) and 0 <= self.at < 1):
            raise ConfigError(f"rescoring: at = {self.at!r} must be a share of the training, at least 0 and below 1")
        for name, least in (("images", 1), ("fresh", 0), ("keep", 1)):
            value = getattr(self, name)
            if not (type(value) is int and value >= least) and not (name == "keep" and value is None):
                raise ConfigError(f"rescoring: {name} = {value!r} must be a whole number of at least {least}")


def build_rescorings(configs: Sequence[Mapping[str, Any]]) -> tuple[Rescoring, ...]:
    """Build the times from config dicts.

    Raises:
        ConfigError: A key is missing or unknown, a value cannot work, or the times do not increase.
    """
    if not isinstance(configs, Sequence) or not all(isinstance(config, Mapping) for config in configs):
        raise ConfigError(f"rescoring = {configs!r:.100} must be a list of dicts such as dict(at=0.5, images=512)")
    known = [field.name for field in fields(Rescoring)]
    for config in configs:
        unknown = [key for key in config if key not in known]
        missing = [key for key in ("at", "images") if key not in config]
        if unknown or missing:
            raise ConfigError(f"rescoring has {dict(config)}: it needs at and images, and may have fresh and keep")
    rescorings = tuple(Rescoring(**config) for config in configs)
    times = [rescoring.at for rescoring in rescorings]
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ConfigError(f"rescoring: at = {times} must increase")
    return rescorings
