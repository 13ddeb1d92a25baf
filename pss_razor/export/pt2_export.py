"""From a static network to a ``.pt2`` file of ``torch.export``."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pss_razor.export.traced_program import trace_program


def to_pt2(module: nn.Module, images: Tensor) -> bytes:
    """:func:`program_to_pt2` of a module; see :func:`~pss_razor.export.traced_program.trace_program`."""
    return program_to_pt2(trace_program(module, images))


def program_to_pt2(program: ExportedProgram) -> bytes:
    """Convert a traced program to a ``.pt2`` file, with its weights inside.

    ``torch.export.load(path).module()`` runs it, without this package. Load such files from sources you trust only:
    their format is torch's own, and not all of it is plain data.
    """
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()
