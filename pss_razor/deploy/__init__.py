"""Exported subnets: static networks in files that are safe to load. Needs torch, numpy and safetensors only.

Example:
    >>> from pss_razor.deploy import load_subnet
    >>> net = load_subnet("export/flops_150")  # doctest: +SKIP
"""

from pss_razor.deploy.files import load_subnet, read_manifest, save_subnet, write_manifest
from pss_razor.deploy.static_net import StaticNet
from pss_razor.deploy.trace import trace_static

__all__ = [
    "StaticNet",
    "load_subnet",
    "read_manifest",
    "save_subnet",
    "trace_static",
    "write_manifest",
]
