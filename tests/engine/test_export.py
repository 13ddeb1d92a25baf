from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from pss_razor.core import ExportError
from pss_razor.deploy import load_subnet, read_manifest
from pss_razor.engine import export
from pss_razor.engine.results import best_of_pools


@pytest.fixture(scope="module")
def _exported(_tested, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    _tested.test_loop.run()
    records = [record for record in best_of_pools(_tested.test_loop.results) if record["metric"] is not None]
    batch = next(iter(_tested.test_dataloader))
    evaluator = _tested.test_loop.build_evaluator_of_pools()
    export.export_subnets(evaluator, records, batch, folder)
    return evaluator, records, batch, folder


@pytest.fixture
def exported(_exported, tested):
    """The evaluator, the records that were exported, the batch of the parity check, and the folder."""
    return _exported


def test_logits_equal_the_supernets(exported):
    evaluator, records, batch, folder = exported
    algorithm = evaluator.algorithm
    images = algorithm.data_preprocessor(batch, False)["inputs"]
    with evaluator.isolated(), torch.no_grad():
        for record in records:
            evaluator.calibrate(record["subnet"])
            expected = algorithm(images)
            difference = (load_subnet(folder / record["name"])(images) - expected).abs().max()
            assert difference <= 1e-5 * expected.abs().max()


def test_manifest(exported):
    _, records, _, folder = exported
    entries = read_manifest(folder)["subnets"]
    assert len(entries) == len(records) >= 5
    for entry, record in zip(entries, records, strict=True):
        assert (entry["metric"], entry["target"]) == (record["metric"], record["target"])
        assert entry["resource"] == record["resources"][record["metric"]]
        assert entry["accuracy"] == record["metrics"]["accuracy/top1"]
        assert {**entry["channels"], "resolution": entry["resolution"]} == dict(record["subnet"])
        assert entry["parity_error"] <= 1e-5
        assert abs(entry["resource"] - entry["target"]) <= {"flops": 0.1, "params": 0.005}[entry["metric"]]
        assert all((folder / file).is_file() for file in entry["files"].values())
        assert load_subnet(folder / record["name"]).resolution == record["subnet"]["resolution"]


def test_parameters_are_the_estimators(exported):
    evaluator, records, _, folder = exported
    counts = [load_subnet(folder / record["name"]).num_parameters for record in records]
    encoded = evaluator.algorithm.space.encode([record["subnet"] for record in records])
    assert counts == [round(millions * 1e6) for millions in evaluator.algorithm.costs["params"](encoded)]
    assert len(set(counts)) > 2


def test_files_are_as_large_as_the_subnet(exported):
    # float32 weights and two statistics a BN channel, whose count is that of the BN weights; the rest is names.
    _, records, _, folder = exported
    for record in records:
        net = load_subnet(folder / record["name"])
        numbers = net.num_parameters + sum(buffer.numel() for buffer in net.buffers() if buffer.dim())
        size = (folder / record["name"] / "model.safetensors").stat().st_size
        assert 0 <= size - 4 * numbers < 64 * 1024


def test_leaves_the_supernet_as_it_was(exported, tmp_path, assert_same):
    evaluator, records, batch, _ = exported
    before = {name: tensor.clone() for name, tensor in evaluator.algorithm.state_dict().items()}
    active = evaluator.algorithm.mutator.active_subnet
    export.export_subnets(evaluator, records[:1], batch, tmp_path)
    assert_same(before, dict(evaluator.algorithm.state_dict()))
    assert evaluator.algorithm.mutator.active_subnet == active


def test_preprocessing_is_stated(exported):
    evaluator, _, batch, folder = exported
    preprocessing = json.loads((folder / "manifest.json").read_text())["preprocessing"]
    images = torch.stack(list(batch["inputs"])).float()
    mean, std = (torch.tensor(preprocessing[key]).view(-1, 1, 1) for key in ("mean", "std"))
    expected = evaluator.algorithm.data_preprocessor(batch, False)["inputs"]
    torch.testing.assert_close((images - mean) / std, expected)
    assert preprocessing["channel_order"].endswith("(BGR)")  # to_rgb=False


def test_a_network_that_differs_is_refused(exported, monkeypatch, tmp_path):
    evaluator, records, batch, _ = exported

    def load_wrong_subnet(folder):
        net = load_subnet(folder)
        list(net.parameters())[-1].add_(0.001)  # the bias of the last layer
        return net

    monkeypatch.setattr(export, "load_subnet", load_wrong_subnet)
    with pytest.raises(
        ExportError, match=r"logits differ from the supernet's by .* of the largest logit, more than 1e-05"
    ):
        export.export_subnets(evaluator, records[:1], batch, tmp_path / "wrong")
    assert not (tmp_path / "wrong" / "manifest.json").exists()


def test_loads_without_openmmlab(exported):
    _, records, _, folder = exported
    program = """
import sys
for name in ("mmengine", "mmcv", "mmcls", "mmrazor", "torchvision"):
    sys.modules[name] = None  # an import of it fails
import torch
from pss_razor.deploy import load_subnet, read_manifest
for entry in read_manifest(sys.argv[1])["subnets"]:
    net = load_subnet(f"{sys.argv[1]}/{entry['metric']}_{entry['target']}")
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
print(len(read_manifest(sys.argv[1])["subnets"]))
"""
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(records)
