"""Heads."""

from pss_razor.models.heads.sliced_linear_cls_head import SlicedLinearClsHead

__all__ = ["SlicedLinearClsHead"]
