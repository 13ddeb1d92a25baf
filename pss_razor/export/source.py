"""All that exported weights and statistics depend on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pss_razor.export.record import hash_file

from mmengine.config import Config

# Which images calibrate and evaluate the model.
_KEYS = ("train_dataloader", "test_dataloader", "test_evaluator", "randomness")
# Resources and pools are no part of a network.
_NOT_OF_THE_MODEL = ("estimators", "constraints")


def describe_source(checkpoint: Path, config: Config, calibration_batches: int) -> dict[str, Any]:
    """Checkpoint, config and calibration of an export, JSON-able; exports with equal sources have equal networks.

    Args:
        checkpoint: The file.
        config: The config that it is exported with.
        calibration_batches: Batches that BN statistics are averaged over.
    """
    model = {key: value for key, value in config.model.items() if key not in _NOT_OF_THE_MODEL}
    settings = repr([model, *(config.get(key) for key in _KEYS)])
    return {
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": hash_file(checkpoint),
        "config_sha256": hashlib.sha256(settings.encode()).hexdigest(),
        "calibration_batches": calibration_batches,
    }
