"""Everything a static network may consist of. What is not named here is neither exported nor loaded."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pss_razor.static.static_parameter import StaticParameter

_CONV = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "bias",
    "padding_mode",
)
_INPLACE = ("inplace",)

MODULE_ATTRIBUTES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: _CONV,
    nn.BatchNorm2d: ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    nn.Linear: ("in_features", "out_features", "bias"),
    StaticParameter: ("shape", "is_learned"),
    nn.GELU: ("approximate",),
    nn.ReLU: _INPLACE,
    nn.ReLU6: _INPLACE,
    nn.SiLU: _INPLACE,
    nn.Hardswish: _INPLACE,
    nn.Hardsigmoid: _INPLACE,
    nn.Sigmoid: (),
    nn.Identity: (),
    nn.Dropout: ("p", "inplace"),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.AvgPool2d: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"),
}
"""Module class -> the constructor arguments that are recorded; together with the weights they are all of its state."""

MODULES: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in MODULE_ATTRIBUTES}

# Operations that only compute: none touches files, imports, or reads an attribute by name, and none makes Python
# objects in a number that a file could choose (which is why chunk, split and unbind are not here).
_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "neg", "getitem")
_TORCH = (
    *("add", "sub", "mul", "div", "cat", "flatten", "reshape", "transpose", "permute", "squeeze", "unsqueeze"),
    *("relu", "sigmoid", "tanh", "clamp", "mean"),
)
_FUNCTIONAL = (
    *("relu", "relu6", "leaky_relu", "silu", "gelu", "elu", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "tanh"),
    *("interpolate", "pad", "dropout"),
    *("adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d"),
)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in _OPERATORS},
    **{f"torch.{name}": getattr(torch, name) for name in _TORCH},
    **{f"torch.nn.functional.{name}": getattr(F, name) for name in _FUNCTIONAL},
}

_METHODS = (
    *("view", "reshape", "flatten", "size", "dim", "numel", "contiguous", "transpose", "permute", "squeeze"),
    *("unsqueeze", "expand", "mean", "add", "add_", "sub", "mul", "mul_", "div", "clamp", "clamp_"),
    *("relu", "relu_", "sigmoid", "tanh"),
)
METHODS: dict[str, Callable[..., Any]] = {name: getattr(torch.Tensor, name) for name in _METHODS}
"""Tensor methods, called unbound so that they refuse everything that is not a tensor."""
