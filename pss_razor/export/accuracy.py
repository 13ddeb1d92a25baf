"""The accuracy of exported networks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pss_razor.evaluation.one_pass import evaluate_in_one_pass, outside_test_loop
from pss_razor.evaluation.pool_evaluator import PoolEvaluator


def measure_networks(runner: Any, evaluator: PoolEvaluator, networks: Sequence[nn.Module]) -> list[dict[str, Any]]:
    """Evaluate networks on the test images, all in one pass.

    Args:
        runner: Its test loop has the images and the metrics.
        evaluator: Its algorithm's data preprocessor normalises the images.
        networks: As they are exported, with rounded BN statistics.

    Returns:
        The metrics of each network.
    """
    loop, algorithm = runner.test_loop, evaluator.algorithm
    device = next(algorithm.parameters()).device
    if device.type != "cpu":
        networks = [copy.deepcopy(network).to(device) for network in networks]

    @torch.no_grad()
    def predict(index: int, data: dict[str, Any]) -> list[Any]:
        scores = networks[index](data["inputs"]).softmax(dim=1)
        return [
            sample.set_pred_score(score).set_pred_label(score.argmax(dim=0, keepdim=True))
            for sample, score in zip(data["data_samples"], scores, strict=True)
        ]

    def prepare(batch: Any) -> dict[str, Any]:
        return algorithm.data_preprocessor(batch, False)

    with outside_test_loop(runner):
        return evaluate_in_one_pass(len(networks), predict, prepare, loop.dataloader, loop.evaluator, runner, "test")
