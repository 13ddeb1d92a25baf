"""Evaluate the best subnets of every pool in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from pss_razor.core import EvaluatedSubnet, Subnet, SubnetSampler
from pss_razor.evaluation.bn_calibration import (
    BNStatistics,
    calibrate_bn,
    get_bn_statistics,
    isolated_bn_statistics,
    set_bn_statistics,
)
from pss_razor.evaluation.calibration_images import load_calibration_batches
from pss_razor.evaluation.checks import check_dataloader
from pss_razor.evaluation.one_pass import evaluate_in_one_pass
from pss_razor.evaluation.random_state import isolated_random_state
from pss_razor.models import PSS

from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner.amp import autocast

# Random numbers of an evaluation, such as dropout in a metric's own network, are the same every time.
_SEED = 0


@contextmanager
def isolated_evaluation(algorithm: PSS) -> Iterator[None]:
    """Evaluation mode; afterwards active subnet, BN statistics, modes and random states are as before."""
    training = algorithm.training
    with (
        isolated_random_state(_SEED),
        isolated_bn_statistics(algorithm),
        algorithm.mutator.active(algorithm.mutator.active_subnet),
    ):
        algorithm.eval()
        try:
            yield
        finally:
            algorithm.train(training)


class PoolEvaluator:
    """BN calibration and evaluation of subnets; leaves the model and the random generators as they were.

    Subnets share the weights; the BN statistics of each are kept aside during an evaluation.

    Args:
        algorithm: The algorithm, unwrapped.
        sampler: With the pools, or of a baseline.
        calibration_dataloader: Training images.
        calibration_batches: Batches that BN statistics are averaged over.
        fp16: Evaluate in mixed precision.
    """

    def __init__(
        self,
        algorithm: PSS,
        sampler: SubnetSampler,
        calibration_dataloader: DataLoader,
        calibration_batches: int = 9,
        fp16: bool = False,
    ) -> None:
        check_dataloader(algorithm, calibration_dataloader, "train_dataloader")
        self.algorithm = algorithm
        self.sampler = sampler
        self.calibration_dataloader = calibration_dataloader
        self.calibration_batches = calibration_batches
        self.fp16 = fp16
        self._batches: list[Any] | None = None

    def candidates(self, top_k: int) -> list[EvaluatedSubnet]:
        """:func:`list_candidates` of the algorithm and the sampler."""
        return list_candidates(self.algorithm, self.sampler, top_k)

    def isolated(self) -> AbstractContextManager[None]:
        """See :func:`isolated_evaluation`."""
        return isolated_evaluation(self.algorithm)

    def calibrate(self, subnet: Subnet) -> BNStatistics:
        """BN statistics of a subnet; call inside :meth:`isolated`. Activates the subnet."""
        if self._batches is None:
            self._batches = load_calibration_batches(self.calibration_dataloader, self.calibration_batches)
        self.algorithm.mutator.activate(subnet)
        calibrate_bn(self.algorithm, self._batches, self._run_images)
        return get_bn_statistics(self.algorithm)

    def calibrate_all(self, subnets: Sequence[Subnet]) -> list[BNStatistics]:
        """BN statistics of each of several subnets."""
        with self.isolated():
            progress = tqdm(subnets, "BN calibration", unit="subnet", disable=not is_main_process(), leave=False)
            return [self.calibrate(subnet) for subnet in progress]

    def evaluate(
        self,
        subnets: Sequence[Subnet],
        dataloader: DataLoader,
        evaluator: Evaluator,
        runner: Any,
        mode: str,
        statistics: Sequence[BNStatistics] | None = None,
    ) -> list[dict[str, Any]]:
        """Metrics of subnets, each with its own BN statistics, in one pass over the images.

        Args:
            subnets: Distinct subnets.
            dataloader: The images.
            evaluator: Its metrics are computed for each subnet.
            runner: Its hooks ``before_{mode}_iter`` and ``after_{mode}_iter`` are called once a batch, with the
                predictions of the last subnet.
            mode: ``"val"`` or ``"test"``.
            statistics: Result of :meth:`calibrate_all` for these subnets; None calibrates them first.

        Returns:
            The metrics of each subnet, in the order of ``subnets``.
        """
        statistics = self.calibrate_all(subnets) if statistics is None else statistics

        def predict(index: int, data: dict[str, Any]) -> list[Any]:
            self.algorithm.mutator.activate(subnets[index])
            set_bn_statistics(self.algorithm, statistics[index])
            return self._predict(data)

        with self.isolated():
            return evaluate_in_one_pass(len(subnets), predict, self._prepare, dataloader, evaluator, runner, mode)

    def _prepare(self, batch: Any) -> dict[str, Any]:
        return self.algorithm.data_preprocessor(batch, False)

    @torch.no_grad()
    def _predict(self, data: dict[str, Any]) -> list[Any]:
        with autocast(enabled=self.fp16):
            return self.algorithm(data["inputs"], data["data_samples"], mode="predict")

    def _run_images(self, batch: Any) -> Tensor:
        # Prepared as for a test; in training, batch augmentation may mix images.
        return self.algorithm(self._prepare(batch)["inputs"], mode="tensor")


def list_candidates(algorithm: PSS, sampler: SubnetSampler, top_k: int) -> list[EvaluatedSubnet]:
    """The largest, the smallest, and the sampler's ``top_k`` candidates of each target; not evaluated yet."""
    space = algorithm.space
    listed: list[dict[str, Any]] = [
        dict(name="largest", metric=None, target=None, subnet=space.largest),
        dict(name="smallest", metric=None, target=None, subnet=space.smallest),
    ]
    for (metric, target), candidates in sampler.candidates(top_k).items():
        for rank, (subnet, score) in enumerate(candidates):
            name = f"{metric}_{target}"
            listed.append(dict(name=name, metric=metric, target=target, rank=rank, subnet=subnet, score=score))
    resources = list_resources(algorithm, [fields["subnet"] for fields in listed])
    return [EvaluatedSubnet(**fields, resources=own) for fields, own in zip(listed, resources, strict=True)]


def list_resources(algorithm: PSS, subnets: Sequence[Subnet]) -> list[dict[str, float]]:
    """For each subnet: metric -> cost, in the unit of its estimator."""
    indices = algorithm.space.encode(subnets)
    costs = {metric: cost(indices) for metric, cost in algorithm.costs.items()}
    return [{metric: float(values[row]) for metric, values in costs.items()} for row in range(len(subnets))]
