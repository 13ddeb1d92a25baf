"""The final evaluation of pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from pss_razor.engine.hooks import TrainingCostHook
from pss_razor.engine.loops.pool_evaluation_mixin import PoolEvaluationMixin
from pss_razor.evaluation.results import RESULTS_FILE, describe_images, write_results
from pss_razor.registry import LOOPS

from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import TestLoop


@LOOPS.register_module()
class PoolTestLoop(PoolEvaluationMixin, TestLoop):
    """mmengine's ``TestLoop`` over the best subnets of every pool; leaves a table and a picture in the work directory.

    Writes ``pool_results.json`` and, for each metric, ``accuracy_<metric>.png``.

    The best subnet of a pool is chosen by its metrics on the selection images, and reported with those on the test
    images. Without selection images it is chosen on the test images, as in the paper, which makes the reported
    accuracy slightly optimistic.

    Args:
        *args: See :class:`PoolEvaluationMixin`.
        out_file: Where the results are written instead; the pictures go beside it.
        selection_dataloader: Images to choose by, held out from training, or their config. None takes the test images.
        selection_evaluator: Metrics to choose by; None takes the test evaluator's.
        **kwargs: See :class:`PoolEvaluationMixin`.

    Example:
        ``test_cfg=dict(type='PoolTestLoop', top_k=5, calibration_batches=9, selection_dataloader=val_dataloader)``
    """

    mode = "test"

    def __init__(
        self,
        *args: Any,
        out_file: str | None = None,
        selection_dataloader: DataLoader | dict | None = None,
        selection_evaluator: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.out_file = Path(out_file) if out_file else Path(self.runner.work_dir) / RESULTS_FILE
        self.selection_dataloader: DataLoader | None = None
        self.selection_evaluator: Evaluator | None = None
        if selection_dataloader is not None:
            self.selection_dataloader = self.runner.build_dataloader(selection_dataloader, seed=self.runner.seed)
            self.selection_evaluator = (
                self.evaluator if selection_evaluator is None else self.runner.build_evaluator(selection_evaluator)
            )
            self.check(self.selection_dataloader, self.selection_evaluator, "test_cfg.selection_dataloader")

    @property
    def training_cost(self) -> dict[str, int | float] | None:
        """See :attr:`TrainingCostHook.cost`; None without the hook."""
        return next((hook.cost for hook in self.runner.hooks if isinstance(hook, TrainingCostHook)), None)

    @property
    def measurements(self) -> list[tuple[str, DataLoader, Evaluator]]:
        """The selection images come first, where there are any."""
        if self.selection_dataloader is None or self.selection_evaluator is None:
            return super().measurements
        return [("selection_metrics", self.selection_dataloader, self.selection_evaluator), *super().measurements]

    def run(self) -> dict[str, float]:
        """Evaluate and write the results."""
        metrics = super().run()
        if is_main_process():
            written = write_results(self, self.results, self.out_file)
            measured = describe_images(self.dataloader.dataset)
            selection = self.selection_dataloader
            selected = measured if selection is None else describe_images(selection.dataset)
            self.runner.logger.info(f"the best of each pool was chosen on {selected}, and measured on {measured}")
            self.runner.logger.info("results written to " + ", ".join(str(path) for path in written))
        return metrics
