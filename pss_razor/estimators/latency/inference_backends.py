"""What runs a network when its latency is measured."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pss_razor.core import ConfigError, check_extra

# From a module in evaluation mode and its inputs to a call that runs it.
Prepare = Callable[..., Callable[[], Any]]

BACKENDS = ("torch", "onnxruntime")


def inference_backend(name: str, device: str, threads: int) -> Prepare:
    """The backend of a name, checked for this machine.

    Args:
        name: One of :data:`BACKENDS`.
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads; sets torch's.

    Raises:
        ConfigError: The device is not there.
        MissingPackageError: A package is not there.
    """
    if threads < 1:
        raise ConfigError(f"threads = {threads} must be at least 1")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: torch sees no GPU here; measure on the machine that has it")
    torch.set_num_threads(threads)
    if name == "torch":
        return lambda module, *inputs: lambda: module(*inputs)
    check_extra("onnx", "onnx", "onnxruntime", what="backend onnxruntime")  # onnx is for torch's exporter
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(f"backend onnxruntime has no {provider} here; install onnxruntime-gpu or take --device cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def prepare(module: nn.Module, *inputs: Tensor) -> Callable[[], Any]:
        names = [f"input{number}" for number in range(len(inputs))]
        session = onnxruntime.InferenceSession(_to_onnx(module, inputs, names), options, providers=[provider])
        # An input of which the block uses the shape alone is none of the file's.
        used = {own.name for own in session.get_inputs()}
        feed = {name: own.cpu().numpy() for name, own in zip(names, inputs, strict=True) if name in used}
        return lambda: session.run(None, feed)

    return prepare


def _to_onnx(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> bytes:
    """Export with torch's old exporter: the new one takes seconds for each block, and gives the same operators."""
    buffer = io.BytesIO()
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
        try:
            torch.onnx.export(module, inputs, buffer, dynamo=False, opset_version=17, input_names=names)  # type: ignore[arg-type]
        finally:
            logger.setLevel(level)
            torch.backends.mha.set_fastpath_enabled(fused_attention)
    return buffer.getvalue()
