"""Loops that evaluate pools."""

from pss_razor.engine.loops.pool_test_loop import PoolTestLoop
from pss_razor.engine.loops.pool_val_loop import PoolValLoop

__all__ = ["PoolTestLoop", "PoolValLoop"]
