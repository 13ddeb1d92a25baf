"""The final evaluation of pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pss_razor.engine.loops.pool_evaluation_mixin import PoolEvaluationMixin
from pss_razor.engine.results import RESULTS_FILE, write_results
from pss_razor.registry import LOOPS

from mmengine.dist import is_main_process
from mmengine.runner import TestLoop


@LOOPS.register_module()
class PoolTestLoop(PoolEvaluationMixin, TestLoop):
    """mmengine's ``TestLoop`` over the best subnets of every pool; leaves a table and a picture in the work directory.

    Writes ``pool_results.json`` and, for each metric, ``accuracy_<metric>.png``.

    Args:
        *args: See :class:`PoolEvaluationMixin`.
        out_file: Where the results are written instead; the pictures go beside it.
        **kwargs: See :class:`PoolEvaluationMixin`.

    Example:
        ``test_cfg=dict(type='PoolTestLoop', top_k=5, calibration_batches=9)``
    """

    mode = "test"

    def __init__(self, *args: Any, out_file: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.out_file = Path(out_file) if out_file else Path(self.runner.work_dir) / RESULTS_FILE

    def run(self) -> dict[str, float]:
        """Evaluate and write the results."""
        metrics = super().run()
        if is_main_process():
            written = write_results(self.runner, self.results, self.out_file)
            self.runner.logger.info("results written to " + ", ".join(str(path) for path in written))
        return metrics
