"""Mutators: they read the search space of a supernet and switch its active subnet."""

from pss_razor.models.mutators.pss_mutator import PSSMutator

__all__ = ["PSSMutator"]
