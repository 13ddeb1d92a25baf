"""Datasets."""

from pss_razor.datasets.digits import Digits
from pss_razor.datasets.image_folder import ImageFolder

__all__ = ["Digits", "ImageFolder"]
