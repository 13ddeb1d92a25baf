"""Files of the authors' MobileNetV1, written here in their layout, against a plain network that reads them itself."""

from __future__ import annotations

import ast
import itertools
import json

import numpy as np
import pssnet_mbv1
import pytest
import torch

from pss_razor.checkpoints.checkpoint import check_state_dict, read_checkpoint
from pss_razor.converters import PSSNetCheckpoint, find_released_model, read_pssnet_latencies
from pss_razor.converters.pssnet_checkpoint import rename_weights
from pss_razor.core import CheckpointError, ConfigError, Subnet
from pss_razor.estimators import LatencyTable

KINDS = {
    "flops": ("flops",),
    "gpu_paper": ("latency_gpu",),
    "cpu_paper": ("latency_cpu",),
    "multi_paper": pssnet_mbv1.METRICS,
}


def subnet_of(widths, resolution):
    return Subnet(dict(zip(pssnet_mbv1.GROUPS, widths, strict=True)) | {"resolution": resolution})


def random_networks(count, seed=0):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        multipliers = generator.uniform(0.75, 1, 14).round(3).tolist()
        yield pssnet_mbv1.widths_of(multipliers), int(generator.choice(pssnet_mbv1.RESOLUTIONS))


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "theirs.pt"
        torch.save(content, path)
        return path

    return write_file


# Weights


@pytest.fixture(scope="module")
def supernet(build_algorithm):
    """With 10 classes, resolutions that are quick to compute, and the authors' weights; and those."""
    options = {"architecture.head.num_classes": 10, "architecture.resolutions": [48, 64, 96, 128]}
    algorithm = build_algorithm("pss_mbv1_flops", **options, constraints=[dict(metric="flops", num_targets=9)])
    state = pssnet_mbv1.make_state_dict(10)
    renamed = rename_weights(state)
    check_state_dict(algorithm, renamed)
    algorithm.load_state_dict(renamed)
    return algorithm, state


def test_every_tensor_has_one_place(supernet):
    algorithm, state = supernet
    renamed = rename_weights(state)
    assert set(renamed) == {f"architecture.{name}" for name in algorithm.architecture.state_dict()}
    assert {id(tensor) for tensor in renamed.values()} == {id(tensor) for tensor in state.values()}
    assert rename_weights({name.removeprefix("module."): tensor for name, tensor in state.items()}).keys() == {*renamed}


@pytest.mark.parametrize(("training", "dtype"), [(True, torch.float64), (False, torch.float64), (False, torch.float32)])
def test_logits(supernet, training, dtype):
    """With ReLU in place of ReLU6 they differ by 0.1 and more.

    In training mode rounding alone moves the plain network's logits by 1e-4 with these weights (float32 against
    float64), so that they are compared in float64.
    """
    algorithm, state = supernet
    algorithm.load_state_dict(rename_weights(state))
    algorithm.to(dtype).train(training)
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    networks = [(pssnet_mbv1.BASE_WIDTHS, 128), (pssnet_mbv1.widths_of([0.75] * 14), 48)]
    networks += [(widths, side) for (widths, _), side in zip(random_networks(3), (64, 96, 128), strict=True)]
    found = []
    for widths, resolution in networks:
        with torch.no_grad(), algorithm.mutator.active(subnet_of(widths, resolution)):
            logits = algorithm(images, mode="tensor")
            expected = pssnet_mbv1.forward(state, images, widths, resolution, training)
        assert (logits - expected).abs().max() <= 1e-5
        found.append(expected)
    assert all((a - b).abs().max() > 0.1 for a, b in itertools.combinations(found, 2))


# Pools


@pytest.fixture(scope="module")
def table_of(write_pickle, tmp_path_factory):
    """``table_of("latency_cpu")``: the authors' table of a metric, imported."""
    paths = {}

    def get(metric):
        if metric not in paths:
            device = dict(latency_cpu="cpu", latency_gpu="cuda")[metric]
            rows = [[*block, pssnet_mbv1.latency_us(block, device)] for block in pssnet_mbv1.all_blocks()]
            paths[metric] = tmp_path_factory.mktemp("tables") / f"{metric}.json"
            LatencyTable(read_pssnet_latencies(write_pickle(rows)), device).save(paths[metric])
        return paths[metric]

    return get


@pytest.fixture(scope="module")
def build(build_algorithm, table_of):
    """``build("cpu_paper")``: the algorithm of a MobileNetV1 config, with the authors' tables."""
    built = {}

    def get(kind):
        if kind not in built:
            options = {f"estimators.{m}.table": str(table_of(m)) for m in KINDS[kind] if m != "flops"}
            built[kind] = build_algorithm(f"pss_mbv1_{kind}", **options)
        return built[kind]

    return get


@pytest.mark.parametrize("kind", ["cpu_paper", pytest.param("gpu_paper", marks=pytest.mark.slow)])
def test_the_authors_table_serves_the_paper_config(build, kind):
    algorithm = build(kind)
    (metric,) = KINDS[kind]
    first, last, step = pssnet_mbv1.TARGETS[metric]
    assert algorithm.constraints[0].targets == tuple(range(first, last + 1, step))
    networks = [(pssnet_mbv1.BASE_WIDTHS, 224), *random_networks(50)]
    predicted = algorithm.costs[metric](algorithm.space.encode([subnet_of(*network) for network in networks]))
    np.testing.assert_allclose(predicted, [pssnet_mbv1.resource(metric, *network) for network in networks], rtol=1e-9)


@pytest.mark.parametrize(
    "kind", ["cpu_paper", *(pytest.param(k, marks=pytest.mark.slow) for k in ("flops", "gpu_paper", "multi_paper"))]
)
def test_pools(build, write, kind):
    """What is in them follows from the texts alone."""
    metrics = KINDS[kind]
    content = pssnet_mbv1.make_checkpoint(metrics, num_classes=1000)
    source = PSSNetCheckpoint.read(write(content))
    assert (source.layout.backbone, source.num_classes, source.last_epoch) == ("mbv1", 1000, 249)
    checkpoint, notes = source.convert(build(kind))
    assert set(checkpoint["pss"]["pools"]) == set(metrics) and not any("moved" in note for note in notes)
    for metric in metrics:
        pools = checkpoint["pss"]["pools"][metric]
        found = {
            int(target): {
                (tuple(entry["channels"][g] for g in pssnet_mbv1.GROUPS), entry["resolution"]): entry["score"]
                for entry in entries
            }
            for target, entries in pools.items()
        }
        expected = {target: {} for target in content["arch_pools"]["pools"][metric]}
        for target, pool in content["arch_pools"]["pools"][metric].items():
            for text, score in pool.items():
                record = ast.literal_eval(text)
                network = pssnet_mbv1.widths_of(record["stage_cout_mults"]), record["resolution"]
                expected[target][network] = max(score, expected[target].get(network, score))
        assert found == expected and sum(map(len, found.values())) > 40


# From the command line


@pytest.mark.slow
def test_default_config_follows_from_the_file(convert, write, tmp_path):
    out = tmp_path / "ours.pth"
    done = convert("checkpoint", write(pssnet_mbv1.make_checkpoint(num_classes=7, entries=5)), out)
    assert done.code == 0, done.err
    assert "pss_mbv1_flops.py --cfg-options model.architecture.head.num_classes=7" in done.out
    checkpoint = read_checkpoint(out, needs_pools=True)
    assert checkpoint["state_dict"]["architecture.head.fc.weight"].shape == (7, 1024)


@pytest.mark.slow
def test_default_config_of_latencies_asks_for_their_table(convert, write, tmp_path, table_of, monkeypatch):
    path, out = write(pssnet_mbv1.make_checkpoint(("latency_cpu",), 1000, entries=5)), tmp_path / "ours.pth"
    monkeypatch.chdir(tmp_path)
    done = convert("checkpoint", path, out)
    assert done.code == 1 and "pssnet_mbv1_cpu.json does not exist" in done.err.splitlines()[-1]
    option = f"model.estimators.latency_cpu.table={table_of('latency_cpu')}"
    done = convert("checkpoint", path, out, "--cfg-options", option)
    assert done.code == 0 and "pss_mbv1_cpu_paper.py" in done.out, done.err


@pytest.mark.parametrize(
    ("backbone", "metrics", "name"),
    [
        ("mbv1", ["flops"], "pss-mbv1-f"),
        ("mbv1", ["latency_gpu"], "pss-mbv1-g"),
        ("mbv2", ["latency_cpu"], "pss-mbv2-c"),
        ("mbv2", ["latency_cpu", "flops", "latency_gpu"], "pss-mbv2-m"),
    ],
)
def test_released_models(backbone, metrics, name):
    assert find_released_model(backbone, metrics) == name


def test_metrics_of_no_released_model():
    with pytest.raises(ConfigError, match=r"pools for \['flops', 'latency_cpu'\], they have .*--config"):
        find_released_model("mbv1", ["latency_cpu", "flops"])


@pytest.mark.parametrize(
    ("multipliers", "model", "words"),
    [
        (13, "mobilenet_v1", "needs 14 'stage_cout_mults'"),
        (14, "mobilenet_v2", "of the model 'mobilenet_v2', the weights are of 'mobilenet_v1'"),
    ],
)
def test_bad_entry(supernet, write, multipliers, model, words):
    content = pssnet_mbv1.make_checkpoint(entries=0)
    text = pssnet_mbv1.text_of([0.75] * multipliers, 128, "flops", 106.8, 110).replace("mobilenet_v1", model)
    content["arch_pools"]["pools"]["flops"][110][text] = -2.0
    with pytest.raises(CheckpointError, match=rf"theirs\.pt, pool flops = 110: .*{words}"):
        PSSNetCheckpoint.read(write(content)).convert(supernet[0])


def test_a_missing_layer_is_named(write):
    content = pssnet_mbv1.make_checkpoint(entries=0)
    del content["model"]["module.features.7.3.weight"]
    with pytest.raises(CheckpointError, match=r"authors' MobileNetV1: features\.7\.3\.weight is missing"):
        PSSNetCheckpoint.read(write(content))


@pytest.mark.slow
def test_the_table_comes_through_the_command_line(convert, write_pickle, tmp_path):
    blocks = pssnet_mbv1.all_blocks()
    done = convert(
        "latency-table",
        write_pickle([[*block, pssnet_mbv1.latency_us(block, "cuda")] for block in blocks]),
        tmp_path / "ours.json",
        "--device",
        "cuda",
    )
    assert done.code == 0 and "14590 blocks on cuda" in done.out, done.err
    rows = json.loads((tmp_path / "ours.json").read_text())["rows"]
    assert {tuple(row[:-2]) for row in rows} == set(blocks)
