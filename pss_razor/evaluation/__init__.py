"""BN calibration, the evaluation of many subnets in one pass, and its results."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
from pss_razor.evaluation.bn_calibration import calibrate_bn, isolated_bn_statistics
from pss_razor.evaluation.cross_entropy import CrossEntropy
from pss_razor.evaluation.pool_evaluator import PoolEvaluator

__all__ = ["CrossEntropy", "PoolEvaluator", "calibrate_bn", "isolated_bn_statistics"]
