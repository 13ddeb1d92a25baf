"""Mutators: they read the search space of a supernet and switch its active subnet."""

from pss_razor.models.mutators.subnet_mutator import SubnetMutator

__all__ = ["SubnetMutator"]
