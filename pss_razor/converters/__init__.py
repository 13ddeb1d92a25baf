"""Files of other programs, turned into this project's. What they hold is read, never executed."""

from pss_razor.converters.pssnet_checkpoint import PSSNetCheckpoint
from pss_razor.converters.pssnet_latency_table import read_pssnet_latencies

__all__ = ["PSSNetCheckpoint", "read_pssnet_latencies"]
