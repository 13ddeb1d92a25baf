"""Validation of pools during training."""

from pss_razor.engine.loops.pool_evaluation_mixin import PoolEvaluationMixin
from pss_razor.registry import LOOPS

from mmengine.runner import ValLoop


@LOOPS.register_module()
class PoolValLoop(PoolEvaluationMixin, ValLoop):
    """mmengine's ``ValLoop`` over the best subnets of every pool.

    Example:
        ``val_cfg=dict(type='PoolValLoop', top_k=1, calibration_batches=9)``
    """

    mode = "val"
