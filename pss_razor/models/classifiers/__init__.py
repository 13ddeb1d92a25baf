"""Classifiers."""

from pss_razor.models.classifiers.converted_image_classifier import ConvertedImageClassifier
from pss_razor.models.classifiers.slimmable_image_classifier import SlimmableImageClassifier

__all__ = ["ConvertedImageClassifier", "SlimmableImageClassifier"]
