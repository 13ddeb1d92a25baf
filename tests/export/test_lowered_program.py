"""Programs lowered for ONNX without a second trace: the same graph as with torch's own decompositions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from pss_razor.export import onnx_export
from pss_razor.export.lowered_program import LoweredProgram
from pss_razor.export.traced_program import trace_program

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def describe(data: bytes) -> list:
    """A model's nodes and weights, values numbered in the order of their nodes instead of named."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(data).graph
    numbers: dict[str, object] = {own.name: own.raw_data for own in graph.initializer}
    numbers |= {own.name: number for number, own in enumerate(graph.input)}
    described = []
    for node in graph.node:
        attributes = sorted(str(own) for own in node.attribute)
        described.append((node.op_type, attributes, [numbers.get(name) for name in node.input]))
        numbers |= {name: len(numbers) for name in node.output}
    shapes = [str(own.type) for own in (*graph.input, *graph.output)]
    return [*described, shapes, [numbers[own.name] for own in graph.output]]


@pytest.fixture
def of_torch(monkeypatch):
    """``of_torch(program)``: the ONNX file after torch's own decompositions."""

    def convert(program):
        with monkeypatch.context() as patch:
            patch.setattr(onnx_export, "LoweredProgram", lambda program: program)
            return onnx_export.program_to_onnx(program)

    pytest.importorskip("onnxscript", reason="needs pss_razor[onnx]")
    return convert


def refuse(self, *args):
    raise AssertionError("traced again")


def test_graph_is_that_of_torchs_decompositions(small_net, of_torch, monkeypatch):
    program = trace_program(small_net, IMAGES)
    before = program.graph_module.code
    expected = describe(of_torch(program))
    monkeypatch.setattr(ExportedProgram, "run_decompositions", refuse)
    assert describe(onnx_export.program_to_onnx(program)) == expected
    assert program.graph_module.code == before  # the .pt2 file may be made of it afterwards
    assert {own[0] for own in expected[:-2]} >= {"Conv", "Clip", "ReduceMean", "Gemm"}


class InPlace(nn.Module):
    """In-place operations on what is used elsewhere, too; a sum of it all tells them apart."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        x = self.conv(images)
        match self.kind:
            case "used after":
                return torch.relu_(x) + x
            case "used before":
                return (x * 2) + torch.relu_(x)
            case "a view":
                torch.relu_(x[:, :2])
                return x
            case "in turn":
                return torch.relu_(x).add_(1).mul_(0.5)
            case "its own input":
                return torch.sigmoid_(images + 0)


@pytest.mark.parametrize("kind", ["used after", "used before", "a view", "in turn", "its own input"])
def test_in_place_operations(kind, of_torch):
    network = InPlace(kind).eval()
    with torch.no_grad():
        program = trace_program(network, IMAGES)
        lowered = LoweredProgram(program)
        more = torch.randn(3, 3, 16, 16)
        torch.testing.assert_close(lowered.module()(more.clone()), network(more.clone()), rtol=0, atol=0)
        assert describe(onnx_export.program_to_onnx(program)) == describe(of_torch(program))
    is_mutable = [
        getattr(node.target, "_schema", None) and node.target._schema.is_mutable for node in lowered.graph.nodes
    ]
    assert any(is_mutable) == (kind in ("used before", "a view"))


def test_what_onnx_lacks_is_decomposed(of_torch):
    """Among operations that are lowered."""
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU6(True),
        nn.AdaptiveAvgPool2d(2),
        nn.Softsign(),
        nn.LogSigmoid(),
    ]
    program = trace_program(nn.Sequential(*layers).eval().requires_grad_(False), IMAGES)
    assert describe(onnx_export.program_to_onnx(program)) == describe(of_torch(program))


def test_batch_norms_by_the_batch_are_left(of_torch):
    network = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)).eval().requires_grad_(False)
    )
    targets = [node.target for node in LoweredProgram(trace_program(network, IMAGES)).graph.nodes]
    assert torch.ops.aten.batch_norm.default in targets
