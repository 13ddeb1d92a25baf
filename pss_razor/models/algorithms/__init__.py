"""Algorithms."""

from pss_razor.models.algorithms.pss import PSS

__all__ = ["PSS"]
