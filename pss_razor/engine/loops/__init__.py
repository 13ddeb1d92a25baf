"""Loops that evaluate pools, and that search."""

from pss_razor.engine.loops.constrained_search_loop import ConstrainedSearchLoop
from pss_razor.engine.loops.pool_test_loop import PoolTestLoop
from pss_razor.engine.loops.pool_val_loop import PoolValLoop

__all__ = ["ConstrainedSearchLoop", "PoolTestLoop", "PoolValLoop"]
