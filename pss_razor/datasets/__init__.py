"""Datasets."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
from pss_razor.datasets.clipped_lighting import ClippedLighting
from pss_razor.datasets.digits import Digits
from pss_razor.datasets.fashion_mnist import FashionMNIST
from pss_razor.datasets.image_folder import ImageFolder
from pss_razor.datasets.load_random_resized_crop import LoadRandomResizedCrop
from pss_razor.datasets.lookup_color_jitter import LookupColorJitter
from pss_razor.datasets.pack_planes import PackPlanes
from pss_razor.datasets.partial_epoch_sampler import PartialEpochSampler

__all__ = [
    "ClippedLighting",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "LoadRandomResizedCrop",
    "LookupColorJitter",
    "PackPlanes",
    "PartialEpochSampler",
]
