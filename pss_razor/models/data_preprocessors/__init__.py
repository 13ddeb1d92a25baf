"""Data preprocessors."""

from pss_razor.models.data_preprocessors.labelled_tensors_data_preprocessor import LabelledTensorsDataPreprocessor
from pss_razor.models.data_preprocessors.non_blocking_cls_data_preprocessor import NonBlockingClsDataPreprocessor

__all__ = ["LabelledTensorsDataPreprocessor", "NonBlockingClsDataPreprocessor"]
