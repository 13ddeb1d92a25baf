"""Files of other programs, turned into this project's. What they hold is read, never executed."""

from pss_razor.converters.pssnet_checkpoint import PSSNetCheckpoint, import_checkpoint
from pss_razor.converters.pssnet_latency_table import read_pssnet_latencies
from pss_razor.converters.released import RELEASED_MODELS, find_released_model

__all__ = [
    "RELEASED_MODELS",
    "PSSNetCheckpoint",
    "find_released_model",
    "import_checkpoint",
    "read_pssnet_latencies",
]
