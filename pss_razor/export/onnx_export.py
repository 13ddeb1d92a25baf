"""From a static network, or a part of one, to ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pss_razor.core import check_extra
from pss_razor.export.lowered_program import LoweredProgram
from pss_razor.export.traced_program import BATCH_SHAPES, trace_program

OPSET = 20
INPUT_NAME = "images"


def to_onnx(module: nn.Module, images: Tensor, output_name: str = "logits") -> bytes:
    """:func:`program_to_onnx` of a module; see :func:`~pss_razor.export.traced_program.trace_program`."""
    return program_to_onnx(trace_program(module, images), output_name)


def program_to_onnx(program: ExportedProgram, output_name: str = "logits") -> bytes:
    """Convert a traced program to an ONNX file with a dynamic batch size, BN folded into the convs before it.

    Args:
        program: It stays as it is.
        output_name: Name of the output; the input is called ``images``.

    Returns:
        The file, of opset :data:`OPSET`, with its weights inside; ``onnx.checker`` has passed it.

    Raises:
        MissingPackageError: onnx or onnxscript is not installed.
    """
    check_extra("onnx", "onnx", "onnxscript", what="ONNX")
    import onnx

    dynamo = logging.getLogger("torch.onnx")
    level = dynamo.level
    # The exporter prints every step.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        dynamo.setLevel(logging.ERROR)
        try:
            converted = torch.onnx.export(
                LoweredProgram(program),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[output_name],
                dynamic_shapes=BATCH_SHAPES,
                verbose=False,
            )
        finally:
            dynamo.setLevel(level)
    assert converted is not None
    model = converted.model_proto
    _remove_debugging(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _remove_debugging(model: Any) -> None:
    """Remove the exporter's debugging metadata, which has paths of source files on this machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
