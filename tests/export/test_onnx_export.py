"""ONNX and ``.pt2`` files of a static network."""

from __future__ import annotations

import importlib.util
import io

import pytest
import torch

from pss_razor.core import ExportError, MissingPackageError
from pss_razor.export.formats import check_formats
from pss_razor.export.onnx_export import OPSET, to_onnx
from pss_razor.export.pt2_export import to_pt2


def test_pt2_runs_any_batch_and_has_no_paths(small_net):
    data = to_pt2(small_net, torch.randn(2, 3, 16, 16))
    module = torch.export.load(io.BytesIO(data)).module()
    for count in (1, 2, 7):
        images = torch.randn(count, 3, 16, 16)
        torch.testing.assert_close(module(images), small_net(images), rtol=0, atol=1e-6)
    assert b"site-packages" not in data and b"static_net.py" not in data


def test_pt2_resizes_in_the_graph(small_net):
    images = torch.randn(2, 3, 24, 24)
    module = torch.export.load(io.BytesIO(to_pt2(small_net, images))).module()
    torch.testing.assert_close(module(images), small_net(images), rtol=0, atol=1e-6)


def test_onnx_runs_any_batch_folds_bn_and_has_no_paths(small_net):
    pytest.importorskip("onnxscript", reason="needs pss_razor[onnx]")
    onnx = pytest.importorskip("onnx", reason="needs pss_razor[onnx]")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs pss_razor[onnx]")
    data = to_onnx(small_net, torch.randn(2, 3, 16, 16))
    model = onnx.load_from_string(data)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    session = onnxruntime.InferenceSession(data)
    for count in (1, 2, 7):
        images = torch.randn(count, 3, 16, 16)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        expected = small_net(images)
        assert (torch.from_numpy(logits) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert b"site-packages" not in data and b"static_net.py" not in data


@pytest.mark.parametrize("convert", [to_pt2, to_onnx])
def test_an_example_of_one_image_is_refused(small_net, convert):
    with pytest.raises(ExportError, match="the example has 1 images"):
        convert(small_net, torch.randn(1, 3, 16, 16))


def test_missing_packages_are_named(small_net, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"onnx, onnxscript, not installed.*pss_razor\[onnx\]"):
        to_onnx(small_net, torch.randn(2, 3, 16, 16))
    with pytest.raises(MissingPackageError, match=r"onnx, onnxscript, onnxruntime, not installed.*pss_razor\[onnx\]"):
        check_formats(["onnx"], "formats")
