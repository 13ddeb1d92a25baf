"""The one command for the authors' models, on files in their layout."""

from __future__ import annotations

import ast
import itertools
import json
import pickle
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pssnet_mbv1
import pytest
import torch
from PIL import Image

from pss_razor.estimators import BlockGeometry, LatencyTable

TOOL = "reproduce_released.py"
SOURCE = "from the release of the PSS-Net authors"
MBV1_F = [
    (107, 67.9), (126, 68.1), (273, 72.1), (306, 72.3), (310, 72.4), (343, 72.7), (375, 73.2), (443, 73.6), (496, 73.8),
    (555, 74.2),
]  # fmt: skip


def fails(done, *words):
    assert done.code == 1 and "Traceback" not in done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("error:") and all(word in line for word in words), line


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of MobileNetV1 with pools for FLOPs; 10 classes."""
    path = tmp_path_factory.mktemp("released") / "mbv1_f.pt"
    torch.save(pssnet_mbv1.make_checkpoint(("flops",), num_classes=10, entries=6), path)
    return path


@pytest.fixture
def run(run_tool, tmp_path, monkeypatch):
    """Run the tool in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: run_tool(TOOL, *args)


def table_rows(out):
    """The cells of a printed table's rows, of each metric."""
    tables, found = {}, None
    for line in out.splitlines():
        cells = line.split()
        if line.endswith(("(flops)", "(latency_gpu)", "(latency_cpu)")):
            found = tables.setdefault(cells[-1].strip("()"), [])
        elif found is not None and len(cells) >= 6 and cells[0].replace(".", "").isdigit():
            found.append(cells)
    return tables


# What is wrong is said before any work


def test_bad_arguments(run, checkpoint, tmp_path):
    resources = "--resources-only"
    fails(run("pss-mbv3-f", checkpoint, resources), "'pss-mbv3-f'", "pss-mbv1-f, pss-mbv1-g", "pss-mbv2-m")
    fails(run("pss-mbv1-f", tmp_path / "none.pt", resources), "none.pt does not exist", SOURCE)
    fails(run("pss-mbv1-g", checkpoint, resources), "pssnet_mbv1_gpu.json does not exist", "latency_gpu=FILE", SOURCE)
    table = f"latency_cpu={checkpoint}"
    fails(run("pss-mbv1-f", checkpoint, resources, "--latency-table", table), "pss-mbv1-f needs no latency table")
    fails(run("pss-mbv1-g", checkpoint, resources, "--latency-table", table), "takes tables of ['latency_gpu']")
    fails(run("pss-mbv1-c", checkpoint, resources, "--latency-table", table, table), "has", "already")
    fails(run("pss-mbv1-c", checkpoint, resources, "--latency-table", "latency_cpu"), "write METRIC=FILE")
    fails(run("pss-mbv1-c", checkpoint, "--latency-table", "latency_cpu=no.pkl"), "no.pkl does not exist", SOURCE)
    fails(run("pss-mbv1-f", checkpoint), "data/imagenet/train is no folder", "--data-root", "--resources-only", SOURCE)
    (tmp_path / "data" / "train").mkdir(parents=True)
    fails(run("pss-mbv1-f", checkpoint, "--data-root", "data"), "data/val is no folder")
    (tmp_path / "file").touch()
    fails(run("pss-mbv1-f", checkpoint, resources, "--out-dir", "file"), "--out-dir file is a file")
    assert not (tmp_path / "work_dirs").exists()


def test_checkpoint_of_another_model(run, checkpoint, tmp_path):
    words = ["is of MobileNetV1 with pools for ['flops']", SOURCE]
    fails(run("pss-mbv2-f", checkpoint, "--resources-only"), "pss-mbv2-f of mbv2", *words)
    LatencyTable({}, "cpu").save(tmp_path / "t.json")
    table = ("--latency-table", f"latency_cpu={tmp_path / 't.json'}")
    fails(run("pss-mbv1-c", checkpoint, "--resources-only", *table), "pools for ['latency_cpu']", *words)
    assert not (tmp_path / "work_dirs").exists()


def test_help_says_what_it_needs(root):
    done = subprocess.run([sys.executable, root / "tools" / TOOL, "--help"], capture_output=True, text=True)
    assert SOURCE in " ".join(done.stdout.split()) and "ImageNet in {train,val}/<class>/" in " ".join(
        done.stdout.split()
    )


# Resources


def nearest(metric, published, entries):
    """The nearest of (name, resource): by hand."""
    return min(entries, key=lambda entry: abs(entry[1] - published))


def expected_entries(path, metric, num_classes):
    """(name, resource) of every pool's best, of the largest and of the smallest subnet, from the texts alone."""
    pools = torch.load(path, weights_only=True)["arch_pools"]["pools"][metric]
    entries = []
    for widths, resolution, name in (
        (pssnet_mbv1.BASE_WIDTHS, 224, "largest"),
        (pssnet_mbv1.widths_of([0.75] * 14), 128, "smallest"),
    ):
        entries.append((name, pssnet_mbv1.resource(metric, widths, resolution, num_classes)))
    for target, pool in pools.items():
        if pool:
            record = ast.literal_eval(max(pool, key=pool.get))
            network = pssnet_mbv1.widths_of(record["stage_cout_mults"]), record["resolution"]
            entries.append((f"{metric}_{target}", pssnet_mbv1.resource(metric, *network, num_classes)))
    return entries


@pytest.mark.slow
def test_resources_only(run, checkpoint, tmp_path):
    done = run("pss-mbv1-f", checkpoint, "--resources-only", "--out-dir", "out")
    assert done.code == 0, done.err
    assert "PSS-MBV1-F: published, and the nearest subnet of" in done.out
    rows = table_rows(done.out)["flops"]
    entries = expected_entries(checkpoint, "flops", 10)
    assert len(entries) > 5 and len(rows) == len(MBV1_F)
    for cells, (published, accuracy) in zip(rows, MBV1_F, strict=True):
        name, resource = nearest("flops", published, entries)
        off_by = f"{resource / published - 1:+.1%}"
        assert cells[:4] == [str(published), f"{resource:.2f}", off_by, f"{accuracy:.2f}"] and cells[-1] == name
    assert not list((tmp_path / "out").glob("*.png"))


def test_resources_of_the_reference_checkpoint(run, reference):
    done = run("pss-mbv2-f", reference / "mbv2_checkpoint_249.pt", "--resources-only")
    assert done.code == 0, done.err
    rows = table_rows(done.out)["flops"]
    assert [cells[0] for cells in rows] == ["69", "84", "134", "154", "163", "203", "241", "277", "294", "301"]
    # 990 classes less than the authors' 69.150208 and 300.836992
    less = 1280 * 990 / 1e6
    assert rows[0][1] == f"{69.150208 - less:.2f}" and rows[-1][1] == f"{300.836992 - less:.2f}"
    assert all(abs(float(cells[1]) - float(cells[0])) < 7 for cells in rows)


BlockCfg = namedtuple("BlockCfg", BlockGeometry._fields[:-1])  # theirs knows nothing of converted networks


@pytest.mark.slow
@pytest.mark.parametrize("pickled", [True, False])
def test_all_three_metrics(run, tmp_path, monkeypatch, pickled):
    """With the authors' pickles, and with tables of this project."""
    path = tmp_path / "m.pt"
    torch.save(pssnet_mbv1.make_checkpoint(pssnet_mbv1.METRICS, num_classes=1000), path)
    monkeypatch.setattr(sys.modules["__main__"], "BlockCfg", BlockCfg, raising=False)
    monkeypatch.setattr(BlockCfg, "__module__", "__main__")
    tables = []
    for metric, device in (("latency_gpu", "cuda"), ("latency_cpu", "cpu")):
        values = {block: pssnet_mbv1.latency_us(block, device) for block in pssnet_mbv1.all_blocks()}
        file = tmp_path / f"theirs_{metric}"
        if pickled:
            file.write_bytes(pickle.dumps({BlockCfg(*block): np.float64(v) for block, v in values.items()}))
        else:
            LatencyTable({BlockGeometry(*block): v for block, v in values.items()}, device).save(file)
        tables.append(f"{metric}={file}")
    done = run("pss-mbv1-m", path, "--resources-only", "--latency-table", *tables)
    assert done.code == 0, done.err
    found = table_rows(done.out)
    assert {metric: len(rows) for metric, rows in found.items()} == dict.fromkeys(pssnet_mbv1.METRICS, 10)
    for metric, rows in found.items():
        scale = 1e-3 if metric == "latency_cpu" else 1  # the paper has milliseconds there
        entries = [(name, resource * scale) for name, resource in expected_entries(path, metric, 1000)]
        for cells in rows:
            name, resource = nearest(metric, float(cells[0]), entries)
            assert (cells[1], cells[-1]) == (f"{resource:.2f}", name)


# Accuracies


@pytest.fixture
def images(tmp_path):
    """A folder dataset of ten classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for label in range(10):
            folder = tmp_path / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "images"


OPTIONS = [
    "--cfg-options", "train_dataloader.batch_size=10", "test_dataloader.batch_size=10", "test_cfg.top_k=1",
    "train_dataloader.num_workers=0", "test_dataloader.num_workers=0", "test_cfg.calibration_batches=1",
]  # fmt: skip


@pytest.mark.slow
def test_accuracies_and_an_interrupted_run(run, checkpoint, images, tmp_path):
    runs = itertools.count()

    def reproduce(path):
        options = [*OPTIONS, f"experiment_name=reproduce_{next(runs)}"]
        return run("pss-mbv1-f", path, "--data-root", images, "--out-dir", "out", *options)

    done = reproduce(checkpoint)
    assert done.code == 0, done.err
    (results,) = (tmp_path / "out").glob("evaluation_*/pool_results.json")
    document = json.loads(results.read_text())
    assert (document["dataset"], document["num_classes"], document["dataset_size"]) == ("ImageFolder", 10, 10)
    accuracies = {record["name"]: record["metrics"]["accuracy/top1"] for record in document["subnets"]}
    rows = table_rows(done.out)["flops"]
    assert len(rows) == len(MBV1_F) and {cells[-1] for cells in rows} <= accuracies.keys()
    for cells, (_, published) in zip(rows, MBV1_F, strict=True):
        own = accuracies[cells[-1]]
        assert cells[3:6] == [f"{published:.2f}", f"{own:.2f}", f"{own - published:+.2f}"]
    assert "accuracies here are of ImageFolder, 10 classes, 10 images" in done.out
    assert (tmp_path / "out" / "reproduction.png").read_bytes().startswith(b"\x89PNG")

    # The picture is lost on the way: nothing is evaluated again, and the table is the same.
    (tmp_path / "out" / "reproduction.png").unlink()
    before = results.stat().st_mtime_ns
    again = reproduce(checkpoint)
    assert again.code == 0 and f"results of an earlier run: out/{results.parent.name}" in again.out
    assert table_rows(again.out) == table_rows(done.out) and results.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "reproduction.png").exists()

    # Another checkpoint has other results.
    other = tmp_path / "other.pt"
    torch.save({**torch.load(checkpoint, weights_only=True), "last_epoch": 248}, other)
    done = reproduce(other)
    assert done.code == 0 and "earlier run" not in done.out, done.err
    assert len(list((tmp_path / "out").glob("evaluation_*/pool_results.json"))) == 2


@pytest.mark.slow
def test_accuracies_of_the_reference_checkpoint(run, reference, images, tmp_path):
    """Its ten classes fit; a dataset of nine does not, which is said before the evaluation."""
    path = reference / "mbv2_checkpoint_249.pt"
    done = run("pss-mbv2-f", path, "--data-root", images, *OPTIONS, "experiment_name=reproduce_reference")
    assert done.code == 0, done.err
    (results,) = (tmp_path / "work_dirs" / "pss-mbv2-f").glob("evaluation_*/pool_results.json")
    assert len(json.loads(results.read_text())["subnets"]) > 20
    assert all(len(cells) == 8 for cells in table_rows(done.out)["flops"])
    for split in ("train", "val"):
        (images / split / "class9").rename(images / f"{split}_class9")
    done = run("pss-mbv2-f", path, "--data-root", images, "--out-dir", "nine", *OPTIONS, "experiment_name=nine")
    fails(done, "the dataset has 9 classes, the head 10")
