from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from pss_razor.core import ExportError, atomic_write
from pss_razor.deploy import files, load_subnet, read_manifest, save_subnet, write_manifest


@pytest.fixture
def folder(small_net, tmp_path):
    save_subnet(small_net, tmp_path / "subnet")
    return tmp_path / "subnet"


def _change_tensors(folder, **changes):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    for name, tensor in changes.items():
        name = f"layers.{name.replace('__', '.')}"
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    path.write_bytes(safetensors.torch.save(tensors))


def test_round_trip(small_net, folder):
    net = load_subnet(folder)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(net(images), small_net(images))
    assert net.spec == small_net.spec and not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_files(small_net, folder):
    assert save_subnet(small_net, str(folder)) == {"spec": "model.json", "weights": "model.safetensors"}
    assert sorted(os.listdir(folder)) == ["model.json", "model.safetensors"]
    data = sum(tensor.numel() * tensor.element_size() for tensor in small_net.state_dict().values())
    size = (folder / "model.safetensors").stat().st_size
    assert data < size < data + 1024 + 100 * len(small_net.state_dict())


def test_size_is_four_bytes_a_parameter(tmp_path):
    from torchvision.models import mobilenet_v2

    from pss_razor.static import trace_static

    net = trace_static(mobilenet_v2(num_classes=1000), 32)
    save_subnet(net, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size == pytest.approx(4 * net.num_parameters, rel=0.02)


def test_damaged_weights(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"subnet \(model.json, .*\): the content is not what was written"):
        load_subnet(folder)


def test_a_damaged_description(folder):
    """That it would run all the same must not hide the damage."""
    path = folder / "model.json"
    text = path.read_text()
    assert text.count('"eps": 1e-05') == 1
    path.write_text(text.replace('"eps": 1e-05', '"eps": 1e-06'))
    with pytest.raises(ExportError, match="the content is not what was written"):
        load_subnet(folder)
    path.write_text(json.dumps(json.loads(text), indent=3))  # in another form it is the same
    load_subnet(folder)


def test_files_of_version_0_1_have_no_digest(small_net, folder):
    _change_tensors(folder)
    assert load_subnet(folder).spec == small_net.spec


def test_missing_files(folder, tmp_path):
    with pytest.raises(ExportError, match=r"nowhere/model\.json does not exist"):
        load_subnet(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"model\.safetensors does not exist"):
        load_subnet(folder)
    (folder / "model.safetensors").symlink_to("/dev/zero")
    with pytest.raises(ExportError, match="is not a file"):
        load_subnet(folder)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_truncated_weights(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ExportError, match=r"model\.safetensors is truncated"):
        load_subnet(folder)


def test_weights_that_are_a_pickle(folder):
    torch.save({"a": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(ExportError, match="not a safetensors file"):
        load_subnet(folder)


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 10**5, '{"resolution": ' + "9" * 5000 + "}"])
def test_description_that_is_not_json(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(ExportError, match=r"model\.json is damaged or not JSON"):
        load_subnet(folder)


@pytest.mark.parametrize("text", ["[]", "null", '{"architecture": "resnet"}', "3"])
def test_description_of_something_else(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(ExportError, match=r"model\.json.*not a static network"):
        load_subnet(folder)


def test_description_that_is_too_long(folder, monkeypatch):
    monkeypatch.setattr(files, "_MAX_JSON_BYTES", 100)
    with pytest.raises(ExportError, match="more than 100"):
        load_subnet(folder)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("add", "target", "os.system", "not whitelisted: 'os.system'"),
        ("add", "target", "builtins.eval", "not whitelisted: 'builtins.eval'"),
        ("view", "target", "__class__", "not whitelisted: '__class__'"),
        ("stem", "type", "torch.nn.LSTM", "not whitelisted: 'torch.nn.LSTM'"),
    ],
)
def test_malicious_descriptions(folder, name, key, value, message):
    spec = json.loads((folder / "model.json").read_text())
    next(node for node in spec["nodes"] if node["name"] == name)[key] = value
    (folder / "model.json").write_text(json.dumps(spec))
    with pytest.raises(ExportError, match=f"subnet .*{message}"):
        load_subnet(folder)


def test_unknown_format(folder):
    spec = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**spec, "format": 99}))
    with pytest.raises(ExportError, match="format 99 is unknown"):
        load_subnet(folder)


def test_absurd_modules_are_refused_before_they_are_allocated(folder):
    spec = json.loads((folder / "model.json").read_text())
    stem = next(node for node in spec["nodes"] if node["name"] == "stem")
    stem["config"]["out_channels"] = 2**24
    stem["config"]["kernel_size"] = [10**3, 10**3]  # 200 TB
    (folder / "model.json").write_text(json.dumps(spec))
    with pytest.raises(ExportError, match=r"'layers\.stem\.weight' is torch\.float32 \(8, 3, 3, 3\), but"):
        load_subnet(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc__bias": None}, r"1 tensor\(s\) missing, such as 'layers\.fc\.bias'"),
        ({"more": torch.ones(1)}, r"1 tensor\(s\) unknown, such as 'layers\.more'"),
        ({"fc__bias": torch.ones(6)}, r"'layers\.fc\.bias' is torch\.float32 \(6,\), but the network needs .*\(5,\)"),
        ({"fc__bias": torch.ones(5, dtype=torch.float16)}, r"'layers\.fc\.bias' is torch\.float16"),
        ({"fc__bias": torch.tensor([0, 0, 0, 0, float("nan")])}, r"'layers\.fc\.bias' has NaN or infinite"),
        ({"block__norm1__running_var": torch.full((8,), float("inf"))}, r"running_var' has NaN or infinite"),
    ],
)
def test_tensors_that_do_not_fit(folder, changes, message):
    _change_tensors(folder, **changes)
    with pytest.raises(ExportError, match=f"subnet .*{message}"):
        load_subnet(folder)


def test_save_refuses_what_load_would_refuse(small_net, tmp_path):
    small_net.layers.fc.bias[0] = float("nan")
    with pytest.raises(ExportError, match="NaN"):
        save_subnet(small_net, tmp_path)
    assert not os.listdir(tmp_path)
    small_net.layers.fc.bias[0] = 0
    with pytest.raises(ExportError, match="float16"):
        save_subnet(small_net.half(), tmp_path)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = """
import os, sys
from pss_razor.core import atomic_write
os.fsync = lambda descriptor: os._exit(9)
atomic_write(sys.argv[1], b"new")
"""
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == 9
    assert path.read_bytes() == b"old"
    atomic_write(path, b"newer")  # what the dead writer left is not in the way
    assert path.read_bytes() == b"newer"


def test_needs_no_openmmlab():
    code = """
import sys, pss_razor.deploy, pss_razor.deploy.preprocess
others = ("mmengine", "mmcv", "mmcls", "mmrazor", "torchvision", "onnx", "onnxruntime", "cv2", "PIL")
print([name for name in others if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.fixture
def manifest():
    subnet = {
        "metric": "flops",
        "target": 150.0,
        "resource": 149.2,
        "accuracy": 70.1,
        "parity_error": 1e-6,
        "channels": {"stem": 16, "stage1": 24},
        "resolution": 160,
        "files": {"spec": "flops_150/model.json", "weights": "flops_150/model.safetensors"},
        "note": "more is allowed",
    }
    return {
        "format": 1,
        "created": "2024-05-01T12:00:00",
        "versions": {"torch": "2.0"},
        "preprocessing": {"mean": [1.0, 2.0, 3.0]},
        "subnets": [subnet, {**subnet, "target": 300.0}],
    }


def test_manifest_round_trip(manifest, tmp_path):
    write_manifest(tmp_path / "export", manifest)
    assert read_manifest(tmp_path / "export") == manifest
    assert os.listdir(tmp_path / "export") == ["manifest.json"]


def test_missing_manifest(tmp_path):
    with pytest.raises(ExportError, match=r"manifest\.json does not exist"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 2, "format is 2"),
        (["format"], None, "format is None"),
        (["created"], 5, "created is 5"),
        (["versions"], {"torch": 2.0}, "versions is"),
        (["preprocessing"], [], "preprocessing is"),
        (["subnets"], {}, "subnets is"),
        (["subnets", 0], [], r"subnets\[0\] is"),
        (["subnets", 0, "metric"], None, r"subnets\[0\]\.metric is None; it must be text"),
        (["subnets", 0, "target"], "150", r"subnets\[0\]\.target is '150'"),
        (["subnets", 0, "target"], 10**310, r"subnets\[0\]\.target is 1000"),
        (["subnets", 0, "target"], True, r"subnets\[0\]\.target is True"),
        (["subnets", 1, "accuracy"], "high", r"subnets\[1\]\.accuracy is 'high'"),
        (["subnets", 0, "resource"], float("nan"), r"subnets\[0\]\.resource is nan"),
        (["subnets", 0, "channels"], {"stem": 1.5}, r"subnets\[0\]\.channels is"),
        (["subnets", 0, "channels"], {"stem": 0}, r"subnets\[0\]\.channels is"),
        (["subnets", 0, "resolution"], 160.0, r"subnets\[0\]\.resolution is 160\.0"),
        (["subnets", 0, "files"], ["model.json"], r"subnets\[0\]\.files is"),
        (["subnets", 1, "target"], 150, r"unique"),
    ],
)
def test_bad_manifests(manifest, tmp_path, path, value, message):
    write_manifest(tmp_path, manifest)
    bad = copy.deepcopy(manifest)
    *parents, last = path
    where = bad
    for key in parents:
        where = where[key]
    where[last] = value
    with pytest.raises(ExportError, match=message):
        write_manifest(tmp_path, bad)
    assert read_manifest(tmp_path) == manifest  # the good one is still there
    (tmp_path / "manifest.json").write_text(json.dumps(bad))
    with pytest.raises(ExportError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "../other/model.json",
        "a/../../b",
        "C:\\x",
        "C:x",
        "\\\\host\\x",
        "a\\..\\b",
        "",
        ".",
        "a\0b",
        "link/x",
        "a/" * 2**20 + "b",
    ],
)
def test_files_outside_of_the_folder(manifest, tmp_path, file):
    (tmp_path / "outside").mkdir()
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "link").symlink_to(tmp_path / "outside")
    manifest["subnets"][0]["files"]["spec"] = file
    (tmp_path / "export" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match=r"subnets\[0\]\.files\['spec'\] is .*relative path inside"):
        read_manifest(tmp_path / "export")


def test_files_reached_by_links_inside_the_folder(manifest, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "flops_150").symlink_to("other")
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_manifest_that_is_not_json(manifest, tmp_path):
    manifest["preprocessing"]["mean"] = torch.zeros(3)
    with pytest.raises(ExportError, match="not JSON"):
        write_manifest(tmp_path, manifest)
