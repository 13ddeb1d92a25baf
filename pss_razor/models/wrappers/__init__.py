"""Model wrappers for several processes."""

from pss_razor.models.wrappers.portable_ddp import PortableDistributedDataParallel
from pss_razor.models.wrappers.pss_ddp import PSSDistributedDataParallel

__all__ = ["PSSDistributedDataParallel", "PortableDistributedDataParallel"]
