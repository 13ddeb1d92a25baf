"""From a trained supernet to files and the runtime, without a config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_network import measured_loader, part, small_supernet, train_loader
from torch import nn

import pss_razor
import pss_razor.export
from pss_razor.core import ConfigError, DataError, ExportError, best_of_pools
from pss_razor.deploy import AdaptiveModel, load_subnet, read_manifest
from pss_razor.evaluation.calibration_images import load_calibration_batches
from pss_razor.evaluation.results import read_results
from pss_razor.export.choice import choose_subnets  # noqa: F401 - a module of the package that is called below

STATISTICS = dict(channel_order="RGB", mean=[127.5] * 3, std=[60.0] * 3, resize=dict(resize=16))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return pss_razor.fit(
        small_supernet(), train_loader(), epochs=3, num_targets=3, pool_size=3, work_dir=tmp_path_factory.mktemp("fit")
    )


@pytest.fixture(scope="module")
def measured(trained):
    return pss_razor.evaluate(trained, measured_loader(), top_k=2, calibration_batches=3)


@pytest.fixture(scope="module")
def folder(measured, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    pss_razor.export(measured, out, formats=("torch", "bundle"), preprocessing=STATISTICS)
    return out


def calibrated(trained, subnet):
    """A subnet as a plain network, with BN statistics by hand: the average of those of three batches."""
    network = trained.supernet.static(subnet)
    size = (subnet["resolution"],) * 2
    batches = load_calibration_batches(trained.runner.train_dataloader, 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    with torch.no_grad():
        for images, _ in batches:
            network(nn.functional.interpolate(images, size, mode="bilinear", align_corners=True))
    network.eval()
    return lambda images: network(nn.functional.interpolate(images, size, mode="bilinear", align_corners=True))


class TestEvaluate:
    def test_accuracies(self, trained, measured):
        images, labels = part(1000, 1060).tensors
        for own in measured:
            with torch.no_grad():
                predicted = calibrated(trained, own.subnet)(images).argmax(1)
            expected = (predicted == labels).float().mean().item() * 100
            assert own.metrics["accuracy/top1"] == pytest.approx(expected, abs=1e-3), own.name

    def test_who_is_measured(self, trained, measured):
        expected = {("flops", target): min(2, len(pool)) for (_, target), pool in trained.pools.items() if len(pool)}
        found = {}
        for own in measured[2:]:
            found[own.pool] = found.get(own.pool, 0) + 1
            assert own.subnet in trained.pools[own.pool]
        assert found == expected and [own.name for own in measured[:2]] == ["largest", "smallest"]
        assert measured.best == best_of_pools(list(measured), measured.loop.criterion)

    def test_prints_a_table(self, measured):
        lines = str(measured).splitlines()
        assert lines[0].split() == ["pool", "MFLOPs", "M", "params", "resolution", "top1", "top5"]
        assert len(lines) == 1 + len(measured.best) and lines[1].split()[0] == "largest"

    def test_leaves_results(self, trained, measured):
        path = Path(trained.runner.work_dir) / "pool_results.json"
        space = measured.loop.runner.model.space
        assert [own.subnet for own in read_results(path, space)] == [own.subnet for own in measured]
        assert json.loads(path.read_text())["checkpoint"].endswith("epoch_3.pth")

    def test_leaves_the_supernet(self, trained):
        before = {name: own.clone() for name, own in trained.supernet.state_dict().items()}
        state = torch.get_rng_state()
        pss_razor.evaluate(trained, measured_loader(), top_k=1, calibration_batches=1)
        assert all(torch.equal(before[name], own) for name, own in trained.supernet.state_dict().items())
        assert torch.equal(torch.get_rng_state(), state)
        assert trained.supernet.active_subnet == trained.supernet.space.largest

    def test_chosen_on_held_out_images(self, tmp_path):
        held_out = measured_loader(1100, 1160)
        trained = pss_razor.fit(
            small_supernet(), train_loader(), epochs=1, num_targets=3, val_loader=held_out, work_dir=tmp_path
        )
        measured = pss_razor.evaluate(trained, measured_loader(), top_k=3, calibration_batches=2)
        assert all(own.selection_metrics is not None for own in measured)
        for best in measured.best:
            same = [own.selection_metrics["accuracy/top1"] for own in measured if own.name == best.name]
            assert best.selection_metrics["accuracy/top1"] == max(same)

    def test_few_classes(self, tmp_path):
        """Top-5 of three classes is none."""
        images, labels = part(0, 200).tensors
        few = torch.utils.data.TensorDataset(images[labels < 3], labels[labels < 3])
        trained = pss_razor.fit(
            small_supernet(num_classes=3), train_loader(few), epochs=1, num_targets=2, work_dir=tmp_path
        )
        measured = pss_razor.evaluate(trained, train_loader(few, shuffle=False), top_k=1, calibration_batches=1)
        assert set(measured[0].metrics) == {"accuracy/top1"}

    def test_bad_arguments(self, trained):
        with pytest.raises(ConfigError, match=r"takes what pss_razor.fit returned, not a Supernet"):
            pss_razor.evaluate(trained.supernet, measured_loader())
        with pytest.raises(ConfigError, match="top_k = 0"):
            pss_razor.evaluate(trained, measured_loader(), top_k=0)
        with pytest.raises(DataError, match="loader yields no batch"):
            pss_razor.evaluate(trained, measured_loader(5, 5))


class TestExport:
    def test_logits_are_those_of_the_subnets(self, trained, measured, folder):
        """Up to BN statistics in float16."""
        images = part(1000, 1010).tensors[0]
        chosen = [own for own in measured.best if own.pool is not None]
        assert len(chosen) >= 2
        for own in chosen:
            with torch.no_grad():
                expected = calibrated(trained, own.subnet)(images)
                logits = load_subnet(folder / own.name)(images)
            assert (logits - expected).abs().max() <= 5e-3 * expected.abs().max()

    def test_manifest(self, measured, folder):
        entries = read_manifest(folder)["subnets"]
        chosen = {own.name: own for own in measured.best if own.pool is not None}
        assert {entry["name"] for entry in entries} == set(chosen)
        for entry in entries:
            own = chosen[entry["name"]]
            assert entry["resource"] == own.resources["flops"] and entry["parity_error"] <= 1e-5
            assert entry["supernet_accuracy"] == own.metrics["accuracy/top1"]
            assert entry["accuracy_of"] == "the export" and entry["selected_by"] == "test images"

    def test_the_runtime_switches(self, measured, folder):
        model = AdaptiveModel.load(folder / "bundle.safetensors")
        images = part(1000, 1010).tensors[0]
        costs = sorted(own.resources["flops"] for own in measured.best if own.pool is not None)
        for budget in (costs[0], costs[-1]):
            name = model.select(flops=budget).name
            own = next(own for own in measured.best if own.name == name)
            assert own.resources["flops"] <= budget
            assert torch.allclose(model(images), load_subnet(folder / name)(images), atol=1e-5)
        assert model.preprocessing == STATISTICS

    @pytest.mark.slow
    def test_onnx(self, measured, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime")
        (first, *_) = pss_razor.export(measured, tmp_path, formats=["torch", "onnx"])
        session = onnxruntime.InferenceSession(tmp_path / first["files"]["onnx"], providers=["CPUExecutionProvider"])
        images = torch.randn(3, 3, first["resolution"], first["resolution"])
        with torch.no_grad():
            expected = load_subnet(tmp_path / first["name"])(images)
        np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-4)
        # Only the loader's transforms know.
        assert read_manifest(tmp_path)["preprocessing"]["mean"] is None

    def test_of_an_earlier_evaluation(self, trained, measured, tmp_path):
        """Measured again on its own images."""
        pss_razor.evaluate(trained, measured_loader(1200, 1230), top_k=1, calibration_batches=1)
        entries = pss_razor.export(measured, tmp_path, formats=["torch"])
        for entry in entries:
            assert abs(entry["accuracy"] - entry["supernet_accuracy"]) <= 100 / 60 + 1e-6
            assert entry["accuracy"] * 60 / 100 == pytest.approx(round(entry["accuracy"] * 60 / 100), abs=1e-3)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            (dict(formats=("torch", "tflite")), ConfigError, "unknown format 'tflite'; choose from"),
            (dict(formats="bundle"), ConfigError, "formats = 'bundle' must be several"),
            (dict(formats=()), ConfigError, "give at least one"),
            (dict(input_size="half"), ConfigError, "input_size = 'half'"),
            (dict(jobs=0), ConfigError, "jobs = 0 must be at least 1"),
            (dict(preprocessing=dict(STATISTICS, std=[0.0] * 3)), ExportError, "std is .* must be positive"),
        ],
    )
    def test_bad_arguments(self, measured, tmp_path, options, error, message):
        with pytest.raises(error, match=message):
            pss_razor.export(measured, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    def test_not_measured(self, trained, tmp_path):
        with pytest.raises(ConfigError, match=r"takes what pss_razor.evaluate returned, not a FitResult"):
            pss_razor.export(trained, tmp_path)

    def test_other_channels(self, tmp_path, capfd):
        """They train, and are warned of."""
        images, labels = part(0, 96).tensors
        grey = torch.utils.data.TensorDataset(images[:, :1], labels)
        options = dict(epochs=1, num_targets=2, work_dir=tmp_path / "work", log_level="WARNING")
        trained = pss_razor.fit(small_supernet(channels=1), train_loader(grey), **options)
        err = capfd.readouterr()
        assert "exported networks take 3" in err.out + err.err
        measured = pss_razor.evaluate(trained, torch.utils.data.DataLoader(grey, 24), top_k=1, calibration_batches=1)
        with pytest.raises(ConfigError, match="images have 1 channels, and exported networks take 3"):
            pss_razor.export(measured, tmp_path / "out")

    def test_a_file_in_the_way(self, measured, tmp_path):
        (tmp_path / "out").touch()
        with pytest.raises(ConfigError, match=r"out_dir = .* is a file"):
            pss_razor.export(measured, tmp_path / "out")
