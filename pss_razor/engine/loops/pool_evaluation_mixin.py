"""What the validation and the test loop over pools share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from pss_razor.core import ConfigError, Criterion, EvaluatedSubnet, Subnet, best_of_pools, is_scalar
from pss_razor.engine.hooks import SubnetSamplerHook
from pss_razor.evaluation.checks import get_algorithm
from pss_razor.evaluation.evaluation_check import check_pool_evaluation
from pss_razor.evaluation.pool_evaluator import PoolEvaluator
from pss_razor.evaluation.results import format_table

from mmengine.evaluator import Evaluator


class PoolEvaluationMixin:
    """Evaluate pools instead of one model.

    Building the loop evaluates one image, to find early what would fail later: metrics that cannot be computed, a
    deciding metric that the evaluator does not report, images of another size than the supernet's largest resolution.

    Args:
        runner: The runner.
        dataloader: Images, or their config.
        evaluator: Metrics, or their config.
        fp16: Evaluate in mixed precision.
        top_k: How many subnets of each pool, best scores first; of a baseline, how many of each target.
        calibration_batches: Training batches that BN statistics are averaged over.
        decided_by: The metric that says which subnet of a pool is best, such as ``"accuracy/top1"``; None takes the
            first of the evaluator's that is a number.
        rule: ``"greater"`` if more of it is better, ``"less"`` if less is.

    Attributes:
        criterion: The metric that decides.
        results: The evaluated subnets.

    Raises:
        ConfigError: A value cannot work.
        DataError: The images do not fit the model.
    """

    mode: str
    runner: Any
    dataloader: DataLoader
    evaluator: Evaluator
    fp16: bool

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        fp16: bool = False,
        top_k: int = 5,
        calibration_batches: int = 9,
        decided_by: str | None = None,
        rule: str = "greater",
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)  # type: ignore[call-arg]
        if top_k < 1 or calibration_batches < 1:
            raise ConfigError(f"top_k = {top_k} and calibration_batches = {calibration_batches} must be at least 1")
        self.top_k = top_k
        self.calibration_batches = calibration_batches
        self.criterion = Criterion(decided_by, rule)
        self.results: list[EvaluatedSubnet] = []
        self.check(self.dataloader, self.evaluator, f"{self.mode}_dataloader")

    def check(self, dataloader: Any, evaluator: Any, name: str) -> None:
        """Run :func:`check_pool_evaluation`, which also resolves the criterion."""
        algorithm = get_algorithm(self.runner)
        self.criterion = check_pool_evaluation(algorithm, dataloader, evaluator, self.criterion, name)

    def build_evaluator_of_pools(self) -> PoolEvaluator:
        """The evaluator of the runner's pools."""
        sampler = next((h.sampler for h in self.runner.hooks if isinstance(h, SubnetSamplerHook)), None)
        if sampler is None:
            raise ConfigError(
                "there are no pools to evaluate; set "
                "default_hooks.subnet_sampler=dict(type='PrioritizedPoolSamplerHook')"
            )
        return PoolEvaluator(
            get_algorithm(self.runner), sampler, self.runner.train_dataloader, self.calibration_batches, self.fp16
        )

    def evaluate_subnets(self, evaluator: PoolEvaluator, subnets: Sequence[EvaluatedSubnet]) -> list[EvaluatedSubnet]:
        """Calibrate BN of subnets, then take all :attr:`measurements`.

        Args:
            evaluator: Of :meth:`build_evaluator_of_pools`.
            subnets: Of :meth:`PoolEvaluator.candidates`.

        Returns:
            The subnets with metrics.
        """
        # One subnet can be in the pools of several metrics.
        distinct = list(dict.fromkeys(own.subnet for own in subnets))
        statistics = evaluator.calibrate_all(distinct)
        found: dict[str, dict[Subnet, dict[str, Any]]] = {}
        for field, dataloader, metrics in self.measurements:
            measured = evaluator.evaluate(distinct, dataloader, metrics, self.runner, self.mode, statistics)
            found[field] = dict(zip(distinct, measured, strict=True))
        return [
            dataclasses.replace(own, **{field: metrics_of[own.subnet] for field, metrics_of in found.items()})  # type: ignore[arg-type]
            for own in subnets
        ]

    @property
    def measurements(self) -> list[tuple[str, DataLoader, Evaluator]]:
        """What is measured, one after the other: field of :class:`EvaluatedSubnet`, images, metrics."""
        return [("metrics", self.dataloader, self.evaluator)]

    def run(self) -> dict[str, float]:
        """Evaluate, and log a table.

        Returns:
            Numbers only; other metrics are in :attr:`results`. ``"<name>/<metric>"`` of the largest, the smallest and
            each pool's best subnet, and ``"pools_mean/<metric>"``.
        """
        self.runner.call_hook(f"before_{self.mode}")
        self.runner.call_hook(f"before_{self.mode}_epoch")
        evaluator = self.build_evaluator_of_pools()
        self.results = self.evaluate_subnets(evaluator, evaluator.candidates(self.top_k))
        best = best_of_pools(self.results, self.criterion)
        metrics = {
            f"{own.name}/{name}": value for own in best for name, value in own.measured.items() if is_scalar(value)
        }
        pools = [own.measured for own in best if own.pool is not None]
        for name, value in (pools[0] if pools else {}).items():
            if is_scalar(value):
                metrics[f"pools_mean/{name}"] = sum(m[name] for m in pools) / len(pools)
        self.runner.logger.info("\n" + format_table(best, get_algorithm(self.runner).estimators))
        self.runner.call_hook(f"after_{self.mode}_epoch", metrics=metrics)
        self.runner.call_hook(f"after_{self.mode}")
        return metrics
