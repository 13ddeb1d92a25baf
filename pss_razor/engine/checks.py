"""What a runner must have for the method, checked before any long work."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from pss_razor.core import ConfigError, DataError
from pss_razor.models import PSS

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def get_algorithm(runner: Runner) -> PSS:
    """The PSS algorithm of a runner, unwrapped.

    Raises:
        ConfigError: The model is something else.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if not isinstance(model, PSS):
        raise ConfigError(f"the model is a {type(model).__name__}; prioritized pools need model=dict(type='PSS', …)")
    return model


def check_dataloader(algorithm: PSS, dataloader: DataLoader, name: str) -> None:
    """Check that a data loader has batches, and as many classes as the head.

    Args:
        algorithm: The algorithm.
        dataloader: The data loader.
        name: Its key in the config, for the error.

    Raises:
        DataError: It has not.
    """
    dataset: Any = dataloader.dataset
    if len(dataloader) == 0:
        raise DataError(
            f"{name} yields no batch: the dataset has {len(dataset)} images, batch_size is {dataloader.batch_size} and "
            f"drop_last is {dataloader.drop_last}; lower the batch size"
        )
    classes = getattr(dataset, "metainfo", {}).get("classes")
    num_classes = getattr(algorithm.architecture.head, "num_classes", None)
    if classes is not None and num_classes is not None and len(classes) != num_classes:
        raise DataError(
            f"{name}: the dataset has {len(classes)} classes, the head {num_classes}; set "
            f"model.architecture.head.num_classes={len(classes)}"
        )
