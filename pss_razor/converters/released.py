"""The eight models that the PSS-Net authors released, and the configs that they are for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pss_razor.core import ConfigError

# Letter in a model's name -> the metrics of its pools, and what its config is called.
_KINDS = {
    "f": (("flops",), "flops"),
    "g": (("latency_gpu",), "gpu_paper"),
    "c": (("latency_cpu",), "cpu_paper"),
    "m": (("flops", "latency_gpu", "latency_cpu"), "multi_paper"),
}
# Metric -> the device that its latency table is of.
TABLE_DEVICES = {"latency_gpu": "cuda", "latency_cpu": "cpu"}


@dataclass(frozen=True)
class ReleasedModel:
    """One of the eight models.

    Args:
        backbone: ``"mbv1"`` or ``"mbv2"``.
        metrics: Metrics that it has pools for.
        config: Path of its config in ``configs/``.
    """

    backbone: str
    metrics: tuple[str, ...]
    config: str

    @property
    def table_metrics(self) -> list[str]:
        """The metrics that need a latency table."""
        return [metric for metric in self.metrics if metric in TABLE_DEVICES]


RELEASED_MODELS = {
    f"pss-{backbone}-{letter}": ReleasedModel(backbone, metrics, f"pss/pss_{backbone}_{kind}.py")
    for backbone in ("mbv1", "mbv2")
    for letter, (metrics, kind) in _KINDS.items()
}


def find_released_model(backbone: str, metrics: Iterable[str]) -> str:
    """The name of the released model with this backbone and pools for these metrics.

    Raises:
        ConfigError: There is none.
    """
    for name, model in RELEASED_MODELS.items():
        if model.backbone == backbone and set(model.metrics) == set(metrics):
            return name
    known = [list(model.metrics) for model in RELEASED_MODELS.values() if model.backbone == backbone]
    raise ConfigError(
        f"no released model has pools for {sorted(metrics)}, they have {known}; give a config by --config"
    )
