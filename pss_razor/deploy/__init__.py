"""Exported subnets in files that are safe to load, one by one or switched at run time.

Needs torch, numpy and safetensors only; ONNX files need onnxruntime besides.

Example:
    >>> from pss_razor.deploy import AdaptiveModel
    >>> model = AdaptiveModel.load("export/bundle.safetensors")  # doctest: +SKIP
    >>> model.select(latency_cpu_us=20_000)  # doctest: +SKIP
    >>> logits = model(images)  # doctest: +SKIP
"""

from pss_razor.deploy.adaptive_controller import AdaptiveController
from pss_razor.deploy.adaptive_model import AdaptiveModel
from pss_razor.deploy.bundle import BundledSubnet, load_bundle, round_bn_statistics, save_bundle
from pss_razor.deploy.files import load_subnet, read_manifest, save_subnet, write_manifest
from pss_razor.deploy.onnx_adaptive_model import OnnxAdaptiveModel
from pss_razor.deploy.subnet_record import SubnetRecord
from pss_razor.static.static_net import StaticNet

__all__ = [
    "AdaptiveController",
    "AdaptiveModel",
    "BundledSubnet",
    "OnnxAdaptiveModel",
    "StaticNet",
    "SubnetRecord",
    "load_bundle",
    "load_subnet",
    "read_manifest",
    "round_bn_statistics",
    "save_bundle",
    "save_subnet",
    "write_manifest",
]
