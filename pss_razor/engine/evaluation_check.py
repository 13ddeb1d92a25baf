"""An evaluation of one image before the long work, to find what would fail after it."""

from __future__ import annotations

import copy

import torch
from torch.utils.data import DataLoader

from pss_razor.core import ConfigError, Criterion
from pss_razor.engine.checks import check_dataloader, check_image_size, first_image
from pss_razor.engine.kept_predictions import KeptPredictions
from pss_razor.engine.pool_evaluator import isolated_evaluation
from pss_razor.models import PSS

from mmengine.dist import get_world_size
from mmengine.evaluator import Evaluator


@torch.no_grad()
def check_evaluation(
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
    check_dataloader(algorithm, dataloader, name)
    kept = KeptPredictions(copy.deepcopy(evaluator))
    with isolated_evaluation(algorithm):
        batch = first_image(dataloader)
        data = algorithm.data_preprocessor(batch, False)
        check_image_size(algorithm, data["inputs"], name)
        algorithm.mutator.activate(algorithm.space.smallest)
        kept.process(batch, algorithm(data["inputs"], data["data_samples"], mode="predict"))
    key = name.replace("dataloader", "evaluator")
    try:
        values = kept.evaluate(get_world_size())
    except ValueError as error:  # mmcls': a top-k of more classes than there are
        raise ConfigError(
            f"{key} cannot be computed: {error} The head has {algorithm.architecture.head.num_classes} classes; set "
            f"{key}.topk=(1,) where it is an accuracy"
        ) from error
    return criterion.resolve(values)
