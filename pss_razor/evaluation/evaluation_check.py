"""An evaluation of one image before a training or a test, to find early what would fail at its end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from pss_razor.core import ConfigError, Criterion
from pss_razor.evaluation.checks import check_dataloader, check_image_size, first_image
from pss_razor.evaluation.kept_predictions import KeptPredictions, evaluate_kept_predictions
from pss_razor.evaluation.pool_evaluator import isolated_evaluation
from pss_razor.evaluation.random_state import isolated_random_state
from pss_razor.models import PSS

from mmengine.dist import get_world_size
from mmengine.evaluator import Evaluator


def check_pool_evaluation(
    algorithm: PSS, dataloader: DataLoader, evaluator: Evaluator, criterion: Criterion, name: str
) -> Criterion:
    """Run the smallest subnet on the first image and compute the metrics; to be called by all processes.

    Args:
        algorithm: The algorithm; stays as it is.
        dataloader: The images of the evaluation.
        evaluator: Its metrics; stays as it is.
        criterion: What will decide which subnet is the best.
        name: Key of the data loader in the config, for errors.

    Returns:
        The criterion, with the name of its metric.

    Raises:
        DataError: There is no image, or the dataset has other classes than the head.
        ConfigError: The image has not the size that the supernet expects, the metrics cannot be computed for so many
            classes, or the criterion's is not among them.
    """

    def predict(batch: Any) -> list[Any]:
        data = algorithm.data_preprocessor(batch, False)
        check_image_size(algorithm, data["inputs"], name)
        algorithm.mutator.activate(algorithm.space.smallest)
        return algorithm(data["inputs"], data["data_samples"], mode="predict")

    check_dataloader(algorithm, dataloader, name)
    with isolated_evaluation(algorithm):
        return criterion.resolve(_compute_metrics(predict, dataloader, evaluator, name))


def check_evaluation(model: nn.Module, dataloader: DataLoader, evaluator: Evaluator, name: str) -> None:
    """Run a single network on the first image, by mmengine's ``val_step``, and compute the metrics.

    Args:
        model: The model, unwrapped; stays as it is.
        dataloader: The images of the evaluation.
        evaluator: Its metrics; stays as it is.
        name: Key of the data loader in the config, for errors.

    Raises:
        DataError: There is no image, or the dataset has other classes than the head.
        ConfigError: The metrics cannot be computed for so many classes.
    """
    check_dataloader(model, dataloader, name)
    training, predict = model.training, cast(Callable[[Any], list[Any]], model.val_step)
    with isolated_random_state(0):
        model.eval()
        try:
            _compute_metrics(predict, dataloader, evaluator, name)
        finally:
            model.train(training)


@torch.no_grad()
def _compute_metrics(
    predict: Callable[[Any], list[Any]], dataloader: DataLoader, evaluator: Evaluator, name: str
) -> dict[str, Any]:
    """Metrics of the first image, which every process evaluates."""
    kept = KeptPredictions(copy.deepcopy(evaluator))
    batch = first_image(dataloader)
    kept.process(batch, predict(batch))
    key = name.replace("dataloader", "evaluator")
    try:
        return evaluate_kept_predictions([kept], get_world_size())[0]
    except ValueError as error:  # mmcls': a top-k of more classes than there are
        raise ConfigError(f"{key} cannot be computed: {error} Set {key}.topk=(1,) where it is an accuracy") from error
