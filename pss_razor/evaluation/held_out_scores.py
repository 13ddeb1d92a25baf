"""Scores of subnets on the same held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from pss_razor.core import DataError, Subnet
from pss_razor.evaluation.bn_calibration import normalised_by_batches
from pss_razor.evaluation.calibration_images import read_batches
from pss_razor.evaluation.pool_evaluator import isolated_evaluation
from pss_razor.models import PSS
from pss_razor.models.algorithms.pss import labels_of

from mmengine.dist import all_gather, get_rank, get_world_size


def load_held_out_images(algorithm: PSS, dataloader: DataLoader, count: int, seed: int) -> tuple[torch.Tensor, Any]:
    """This process' part of some held-out images, prepared as for a test.

    Args:
        algorithm: Prepares them.
        dataloader: Its dataset and collation are used; all images are one batch.
        count: How many images, over all processes; what does not divide among them is left out.
        seed: Which ones; the same on all ranks.

    Returns:
        Images (N, C, H, W) and labels (N,).

    Raises:
        DataError: There are not as many.
    """
    check_held_out_images(dataloader, count)
    order = torch.randperm(len(dataloader.dataset), generator=torch.Generator().manual_seed(seed))[:count]  # type: ignore[arg-type]
    world = get_world_size()
    own = order[: count // world * world][get_rank() :: world].tolist()
    (batch,) = read_batches(dataloader, own, len(own), seed)
    data = algorithm.data_preprocessor(batch, False)
    return data["inputs"], labels_of(data["data_samples"])


def check_held_out_images(dataloader: DataLoader, count: int) -> None:
    """Check that there are as many images as are to be scored on.

    Raises:
        DataError: There are fewer images, or fewer are asked for than there are processes.
    """
    size = len(dataloader.dataset)  # type: ignore[arg-type]
    if not get_world_size() <= count <= size:
        raise DataError(
            f"scoring_dataloader has {size} images, a rescoring asks for images = {count}; hold out more, or ask for "
            f"fewer, but at least one for each of {get_world_size()} processes"
        )


def score_on(algorithm: PSS, subnets: Sequence[Subnet], images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Minus the cross-entropy of each subnet, its BN normalising by the statistics of these images.

    All subnets see the same images, so that their scores differ by what the subnets differ in. Leaves the model and
    the random generators as they were.

    Args:
        algorithm: The supernet.
        subnets: Subnets.
        images: This process' images (N, C, H, W).
        labels: Their labels (N,).

    Returns:
        The mean over all processes' images, the same bits on all ranks.
    """
    losses = []
    with isolated_evaluation(algorithm), normalised_by_batches(algorithm), torch.no_grad():
        for subnet in subnets:
            algorithm.mutator.activate(subnet)
            losses.append(F.cross_entropy(algorithm(images, mode="tensor").float(), labels))
    gathered = torch.stack(all_gather(torch.stack(losses))).double().mean(0)
    return [-float(loss) for loss in gathered]
