from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from pss_razor.core import ExportError
from pss_razor.deploy import BundledSubnet, OnnxAdaptiveModel, write_manifest
from pss_razor.export.onnx_export import to_onnx
from pss_razor.static import trace_static

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def _onnx_files():
    """Three small networks and their files."""
    torch.manual_seed(0)
    subnets = []
    for index, resolution in enumerate((16, 24, 32)):
        layers = [nn.Conv2d(3, 4 + index, 3, 2), nn.BatchNorm2d(4 + index), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 + index, 5))
        model[1].running_mean.normal_()
        subnets.append(
            BundledSubnet(
                net=trace_static(model, resolution),
                name=f"subnet_{index}",
                metric="flops",
                target=float(index),
                resources={"flops": 1.0 + index, "latency_cpu": 1000.0 * index},
                accuracy=50.0 + index,
                channels={"conv": 4 + index},
                resolution=resolution,
            )
        )
    return subnets, [to_onnx(s.net, torch.zeros(2, 3, s.resolution, s.resolution)) for s in subnets]


@pytest.fixture
def folder(_onnx_files, tmp_path):
    entries = []
    for subnet, data in zip(*_onnx_files, strict=True):
        (tmp_path / f"{subnet.name}.onnx").write_bytes(data)
        record = subnet.to_json()
        files = {"onnx": f"{subnet.name}.onnx"}
        entries.append({**record, "resource": record["resources"]["flops"], "parity_error": 0.0, "files": files})
    manifest = {"format": 1, "created": "", "versions": {}, "preprocessing": {"mean": [0.0] * 3}, "subnets": entries}
    write_manifest(tmp_path, manifest)
    return tmp_path


def test_outputs_and_interface(folder, _onnx_files):
    model = OnnxAdaptiveModel.load(folder, num_threads=1)
    assert model.preprocessing == {"mean": [0.0] * 3}
    assert model.current.name == "subnet_2" and model.metrics == ["flops", "latency_cpu"]
    images = torch.randn(3, 3, 40, 40)
    for subnet in _onnx_files[0]:
        assert model.select(flops=subnet.resources["flops"]).name == subnet.name
        expected = subnet.net(images)
        assert (model(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
    with pytest.raises(ExportError, match="the cheapest, 'subnet_0'"):
        model.select(flops=0.1)


def test_sessions_are_opened_on_demand_and_bounded(folder):
    model = OnnxAdaptiveModel.load(folder, max_sessions=2, num_threads=1)
    assert model.open_sessions == []
    model.select(flops=1)
    assert model.open_sessions == []
    model.warm_up()
    assert model.open_sessions == ["subnet_0"]
    model.warm_up(["subnet_1", "subnet_0", "subnet_2"])
    assert model.open_sessions == ["subnet_0", "subnet_2"]
    assert model.current.name == "subnet_0"


def test_opening_keeps_nobody_waiting(folder, monkeypatch):
    """One thread opens a session that takes long; others use their own meanwhile, or wait for the same one."""
    model = OnnxAdaptiveModel.load(folder, num_threads=1)
    model.warm_up(["subnet_0"])
    opening, may_open = threading.Event(), threading.Event()
    opened = []
    open_session = model._open

    def slow(file):
        opened.append(file.name)
        if file.name == "subnet_1.onnx":
            opening.set()
            assert may_open.wait(60)
        return open_session(file)

    monkeypatch.setattr(model, "_open", slow)
    with ThreadPoolExecutor(4) as pool:
        slow_ones = [pool.submit(model.warm_up, ["subnet_1"]) for _ in range(2)]
        assert opening.wait(60)
        pool.submit(model.warm_up, ["subnet_0", "subnet_2"]).result(timeout=60)
        assert model.open_sessions == ["subnet_0", "subnet_2"] and not any(f.done() for f in slow_ones)
        may_open.set()
        for future in slow_ones:
            future.result(timeout=60)
    assert sorted(opened) == ["subnet_1.onnx", "subnet_2.onnx"]


def test_a_session_that_could_not_be_opened_is_tried_again(folder, monkeypatch):
    model = OnnxAdaptiveModel.load(folder, num_threads=1)
    path = folder / "subnet_2.onnx"
    good = path.read_bytes()
    path.write_bytes(b"bad")
    for _ in range(2):
        with pytest.raises(ExportError, match="is damaged"):
            model.warm_up()
    assert model.open_sessions == []
    path.write_bytes(good)
    model.warm_up()
    assert model.open_sessions == ["subnet_2"]


def test_a_graph_that_resizes_takes_the_size_it_was_made_for(folder, _onnx_files):
    class Resizing(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, images):
            return self.net(images)

    net = _onnx_files[0][0].net
    (folder / "subnet_0.onnx").write_bytes(to_onnx(Resizing(net), torch.zeros(2, 3, 48, 48)))
    model = OnnxAdaptiveModel.load(folder, num_threads=1)
    model.use("subnet_0")
    images = torch.randn(2, 3, 48, 48)
    expected = net(images)
    assert (model(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert model(torch.randn(1, 3, 20, 20)).shape == expected[:1].shape


def test_bad_images(folder):
    model = OnnxAdaptiveModel.load(folder, num_threads=1)
    with pytest.raises(ExportError, match="shape"):
        model(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ExportError, match="normalise"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(("options", "message"), [({"max_sessions": 0}, "max_sessions"), ({"num_threads": -1}, "num_")])
def test_bad_settings(folder, options, message):
    with pytest.raises(ExportError, match=message):
        OnnxAdaptiveModel.load(folder, **options)


def test_bad_files(folder):
    path = folder / "subnet_2.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    model = OnnxAdaptiveModel.load(folder)
    with pytest.raises(ExportError, match=r"subnet_2\.onnx is damaged or not an ONNX file"):
        model.warm_up()
    path.unlink()
    with pytest.raises(ExportError, match=r"'subnet_2' has no ONNX file .* --formats onnx"):
        OnnxAdaptiveModel.load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["subnets"][0]["files"]["onnx"] = "../../other.onnx"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="a relative path inside its folder"):
        OnnxAdaptiveModel.load(folder)
