"""Evaluating many networks on the same images."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from pss_razor.evaluation.kept_predictions import KeptPredictions, evaluate_kept_predictions

from mmengine.dist import all_reduce, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log

# Memory for the predictions of a process until all images are seen. mmcls' accuracy takes 6 bytes an image and network.
_MAX_KEPT_BYTES = 2**30


def evaluate_in_one_pass(
    count: int,
    predict: Callable[[int, dict[str, Any]], list[Any]],
    prepare: Callable[[Any], dict[str, Any]],
    dataloader: DataLoader,
    evaluator: Evaluator,
    runner: Any,
    mode: str,
    max_kept_bytes: int = _MAX_KEPT_BYTES,
) -> list[dict[str, Any]]:
    """Metrics of networks. Each batch runs through all networks, so that each image is read and decoded once.

    If the predictions of all networks would exceed ``max_kept_bytes``, there are several passes, with a warning.

    Args:
        count: Number of networks N.
        predict: Number of a network, 0 to N - 1, and prepared images -> its predictions, mmcls' data samples.
        prepare: Batch of the data loader -> images and samples, normalised on the device.
        dataloader: The images.
        evaluator: Its metrics are computed for each network.
        runner: Its hooks ``before_{mode}_iter`` and ``after_{mode}_iter`` are called once a batch, with the
            predictions of the last network.
        mode: ``"val"`` or ``"test"``.
        max_kept_bytes: Memory for the predictions of a process.

    Returns:
        The metrics of each network.
    """
    results: list[dict[str, Any]] = []
    while len(results) < count:
        first = len(results)
        group = [KeptPredictions(copy.deepcopy(evaluator)) for _ in range(count - first)]
        progress = tqdm(dataloader, unit="batch", disable=not is_main_process(), leave=False)
        for index, batch in enumerate(progress):
            runner.call_hook(f"before_{mode}_iter", batch_idx=index, data_batch=batch)
            data = prepare(batch)
            number = 0
            while number < len(group):
                outputs = predict(first + number, data)
                group[number].process(batch, outputs)
                if index == number == 0:
                    room = max_kept_bytes // max(1, group[0].num_bytes * len(dataloader))
                    group = group[: _agree(max(1, room))]
                    progress.set_description(f"{len(group)} networks")
                    if not first and len(group) < count:
                        print_log(
                            f"the evaluator's metrics keep {group[0].num_bytes} bytes of a network's first batch: the "
                            f"{count} networks are evaluated {len(group)} at a time, each time on all images",
                            logger="current",
                            level=logging.WARNING,
                        )
                number += 1
            runner.call_hook(f"after_{mode}_iter", batch_idx=index, data_batch=batch, outputs=outputs)
        results += evaluate_kept_predictions(group, len(dataloader.dataset))  # type: ignore[arg-type]
    return results


@contextmanager
def outside_test_loop(runner: Any) -> Iterator[None]:
    """Call the hooks of a test around an evaluation with ``mode="test"`` that no test loop runs.

    ``after_test_epoch`` is left out, since it logs the metrics of a test loop.
    """
    for hook in ("before_test", "before_test_epoch"):
        runner.call_hook(hook)
    yield
    runner.call_hook("after_test")


def _agree(number: int) -> int:
    """The smallest of the processes' numbers."""
    tensor = torch.tensor(number)
    all_reduce(tensor, op="min")
    return int(tensor)
