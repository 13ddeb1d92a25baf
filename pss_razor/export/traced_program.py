"""A module traced by ``torch.export``, from which the formats that need a graph are made."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pss_razor.core import ExportError

# The shapes of a module's only argument: any number of images.
BATCH_SHAPES = ({0: torch.export.Dim("batch")},)
# Debugging metadata of torch.export: paths of source files on this machine; a fifth of the graph's size.
_DEBUGGING = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def trace_program(module: nn.Module, images: Tensor) -> ExportedProgram:
    """Trace a module with a dynamic batch size. The program has no paths of this machine in it.

    Args:
        module: Without data-dependent code; a :class:`~pss_razor.static.StaticNet`, say. In evaluation mode.
        images: An example input, (N, …) with N of at least 2, which becomes the dynamic batch size.

    Raises:
        ExportError: The batch is too small: tracing takes a batch size of 1 for a constant.
    """
    if len(images) < 2:
        raise ExportError(f"the example has {len(images)} images; two at least show that the batch size is dynamic")
    program = torch.export.export(module, (images,), dynamic_shapes=BATCH_SHAPES)
    for node in program.graph.nodes:
        for key in _DEBUGGING:
            node.meta.pop(key, None)
    program.example_inputs = None  # would be stored, at 1.2 MB for two images of 224 pixels
    return program
