"""Any network as a supernet. Needs torch and numpy; nothing of OpenMMLab."""

from pss_razor.conversion.convert import convert
from pss_razor.conversion.supernet import Supernet

__all__ = ["Supernet", "convert"]
