"""Losses."""

from pss_razor.models.losses.smooth_cross_entropy_loss import SmoothCrossEntropyLoss

__all__ = ["SmoothCrossEntropyLoss"]
