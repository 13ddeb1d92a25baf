"""Activations."""

from pss_razor.models.activations.lean_relu6 import LeanReLU6

__all__ = ["LeanReLU6"]
