"""The final evaluation of pools."""

from __future__ import annotations

from pathlib import Path

from pss_razor.engine.loops.pool_evaluation_mixin import PoolEvaluationMixin
from pss_razor.engine.results import write_results
from pss_razor.registry import LOOPS  # isort: skip
from mmengine.dist import is_main_process
from mmengine.runner import TestLoop


@LOOPS.register_module()
class PoolTestLoop(PoolEvaluationMixin, TestLoop):
    """mmengine's ``TestLoop`` over the best subnets of every pool; leaves a table and a picture in the work directory.

    Writes ``pool_results.json`` and, for each metric, ``accuracy_<metric>.png``.

    Example:
        ``test_cfg=dict(type='PoolTestLoop', top_k=5, calibration_batches=9)``
    """

    mode = "test"

    def run(self) -> dict[str, float]:
        """Evaluate and write the results."""
        metrics = super().run()
        if is_main_process():
            written = write_results(self.runner, self.results, Path(self.runner.work_dir))
            self.runner.logger.info("results written to " + ", ".join(str(path) for path in written))
        return metrics
