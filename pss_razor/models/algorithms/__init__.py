"""Algorithms."""

from pss_razor.models.algorithms.cream import Cream, CreamStep
from pss_razor.models.algorithms.pss import PSS
from pss_razor.models.algorithms.subnet_alone import SubnetAlone

__all__ = ["PSS", "Cream", "CreamStep", "SubnetAlone"]
