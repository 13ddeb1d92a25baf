"""Evaluate the best subnets of every pool in one pass over the data."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from pss_razor.core import Subnet, SubnetSampler
from pss_razor.engine.bn_calibration import (
    BNStatistics,
    calibrate_bn,
    get_bn_statistics,
    isolated_bn_statistics,
    set_bn_statistics,
)
from pss_razor.engine.checks import check_dataloader
from pss_razor.engine.random_state import isolated_random_state
from pss_razor.models import PSS

from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.runner.amp import autocast

# Which training images calibrate BN follows from this seed, so that test and export see the same statistics.
_CALIBRATION_SEED = 0


class PoolEvaluator:
    """BN calibration and evaluation of subnets; leaves the model and the random generators as they were.

    Validation batches are outside and subnets inside, so that images are read and decoded once for all subnets. What
    a subnet owns, its BN statistics, is kept aside meanwhile.

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

    def candidates(self, top_k: int) -> list[dict[str, Any]]:
        """:func:`list_candidates` of the algorithm and the sampler."""
        return list_candidates(self.algorithm, self.sampler, top_k)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Evaluation mode; afterwards active subnet, BN statistics, modes and random states are as before."""
        training = self.algorithm.training
        with (
            isolated_random_state(_CALIBRATION_SEED),
            isolated_bn_statistics(self.algorithm),
            self.algorithm.mutator.active(self.algorithm.mutator.active_subnet),
        ):
            self.algorithm.eval()
            try:
                yield
            finally:
                self.algorithm.train(training)

    def calibrate(self, subnet: Subnet) -> BNStatistics:
        """BN statistics of a subnet; call inside :meth:`isolated`. Activates the subnet."""
        if self._batches is None:
            # Kept as the loader made them, 8-bit images on the host: small, and loaded once for all subnets.
            self._batches = list(itertools.islice(self.calibration_dataloader, self.calibration_batches))
            if len(self._batches) < self.calibration_batches:
                print_log(
                    f"BN is calibrated on {len(self._batches)} batches, all that train_dataloader has, instead of "
                    f"calibration_batches = {self.calibration_batches}",
                    logger="current",
                    level=logging.WARNING,
                )
        self.algorithm.mutator.activate(subnet)
        calibrate_bn(self.algorithm, self._batches, self._run_images)
        return get_bn_statistics(self.algorithm)

    def evaluate(
        self, subnets: Sequence[Subnet], dataloader: DataLoader, evaluator: Evaluator, runner: Any, mode: str
    ) -> list[dict[str, float]]:
        """Calibrate and evaluate subnets.

        Args:
            subnets: Distinct subnets.
            dataloader: Validation images.
            evaluator: Its metrics are computed for each subnet.
            runner: Its hooks ``before_{mode}_iter`` and ``after_{mode}_iter`` are called once a batch, with the
                predictions of the last subnet.
            mode: ``"val"`` or ``"test"``.

        Returns:
            The metrics of each subnet, in the order of ``subnets``.
        """
        evaluators = [copy.deepcopy(evaluator) for _ in subnets]
        with self.isolated():
            progress = tqdm(subnets, "BN calibration", unit="subnet", disable=not is_main_process(), leave=False)
            statistics = [self.calibrate(subnet) for subnet in progress]
            batches = tqdm(
                dataloader, f"{len(subnets)} subnets", unit="batch", disable=not is_main_process(), leave=False
            )
            for index, batch in enumerate(batches):
                runner.call_hook(f"before_{mode}_iter", batch_idx=index, data_batch=batch)
                data = self.algorithm.data_preprocessor(batch, False)
                for subnet, own_statistics, own_evaluator in zip(subnets, statistics, evaluators, strict=True):
                    self.algorithm.mutator.activate(subnet)
                    set_bn_statistics(self.algorithm, own_statistics)
                    outputs = self._predict(data)
                    own_evaluator.process(data_samples=outputs, data_batch=batch)
                runner.call_hook(f"after_{mode}_iter", batch_idx=index, data_batch=batch, outputs=outputs)
        return [own_evaluator.evaluate(len(dataloader.dataset)) for own_evaluator in evaluators]

    @torch.no_grad()
    def _predict(self, data: dict[str, Any]) -> list[Any]:
        with autocast(enabled=self.fp16):
            return self.algorithm(data["inputs"], data["data_samples"], mode="predict")

    def _run_images(self, batch: Any) -> Tensor:
        # Not as in training: mixed images, if configured, are not what the subnet will see.
        return self.algorithm(self.algorithm.data_preprocessor(batch, False)["inputs"], mode="tensor")


def list_candidates(algorithm: PSS, sampler: SubnetSampler, top_k: int) -> list[dict[str, Any]]:
    """The largest, the smallest, and the sampler's ``top_k`` candidates of each target; records without accuracies.

    A record has ``metric``, ``target`` and ``rank`` (0 is the pool's best; None for largest and smallest),
    ``name``, ``subnet``, ``score`` (None without pools) and ``resources`` by metric.
    """
    space = algorithm.space
    records: list[dict[str, Any]] = [
        dict(name="largest", metric=None, target=None, rank=None, subnet=space.largest, score=None),
        dict(name="smallest", metric=None, target=None, rank=None, subnet=space.smallest, score=None),
    ]
    for (metric, target), candidates in sampler.candidates(top_k).items():
        for rank, (subnet, score) in enumerate(candidates):
            name = f"{metric}_{target}"
            records.append(dict(name=name, metric=metric, target=target, rank=rank, subnet=subnet, score=score))
    indices = space.encode([record["subnet"] for record in records])
    costs = {metric: cost(indices) for metric, cost in algorithm.costs.items()}
    for row, record in enumerate(records):
        record["resources"] = {metric: float(values[row]) for metric, values in costs.items()}
    return records
