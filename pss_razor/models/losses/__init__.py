"""Losses."""

from pss_razor.models.losses.alpha_divergence import AlphaDivergence
from pss_razor.models.losses.kl_distillation import KLDistillation
from pss_razor.models.losses.smooth_cross_entropy_loss import SmoothCrossEntropyLoss

__all__ = ["AlphaDivergence", "KLDistillation", "SmoothCrossEntropyLoss"]
