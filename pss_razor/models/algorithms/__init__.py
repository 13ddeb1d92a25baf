"""Algorithms."""

from pss_razor.models.algorithms.cream import Cream, CreamStep
from pss_razor.models.algorithms.pss import PSS

__all__ = ["PSS", "Cream", "CreamStep"]
