"""Classifiers."""

from pss_razor.models.classifiers.slimmable_image_classifier import SlimmableImageClassifier

__all__ = ["SlimmableImageClassifier"]
