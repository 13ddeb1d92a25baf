"""From a static network to a ``.pt2`` file of ``torch.export``."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from pss_razor.core import ExportError

# Debugging metadata of torch.export: paths of source files on this machine; a fifth of the graph's size.
_DEBUGGING = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def to_pt2(module: nn.Module, images: Tensor) -> bytes:
    """Convert a module to a ``.pt2`` file with a dynamic batch size.

    ``torch.export.load(path).module()`` runs it, without this package. Load such files from sources you trust only:
    their format is torch's own, and not all of it is plain data.

    Args:
        module: Without data-dependent code; a :class:`StaticNet`, say. In evaluation mode.
        images: An example input, (N, …) with N of at least 2, which becomes the dynamic batch size.

    Returns:
        The file, with its weights inside.

    Raises:
        ExportError: The batch is too small.
    """
    check_example(images)
    program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        for key in _DEBUGGING:
            node.meta.pop(key, None)
    program.example_inputs = None  # would be stored, at 1.2 MB for two images of 224 pixels
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def check_example(images: Tensor) -> None:
    """Check that an example has at least two images: tracing takes a batch size of 1 for a constant.

    Raises:
        ExportError: It has fewer.
    """
    if len(images) < 2:
        raise ExportError(f"the example has {len(images)} images; two at least show that the batch size is dynamic")
