"""Checkpoints of the authors' program: the reference one, and small ones written here with the names that it has."""

from __future__ import annotations

import ast
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pss_razor.checkpoints.checkpoint import check_state_dict, read_checkpoint
from pss_razor.converters import PSSNetCheckpoint
from pss_razor.converters.pssnet_checkpoint import rename_weights
from pss_razor.core import CheckpointError
from pss_razor.deploy import read_manifest
from pss_razor.engine.launch import build_runner, load_config
from pss_razor.export.choice import choose_pools, choose_subnets
from pss_razor.export.exporter import export_subnets

GROUPS = ("stem", *(f"stage{stage}" for stage in range(1, 8)))
BASE_WIDTHS = (32, 16, 24, 32, 64, 96, 160, 320)
# The 1000-class linear layer that the authors count, against that of 10 classes.
MFLOPS_OF_990_CLASSES = 1280 * 990 / 1e6
RESOLUTIONS = list(range(128, 225, 8))
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "pss"


def their_names():
    """The authors' names in the order of the layers."""
    convs = ["features.0.0", *(f"features.1.body.{n}" for n in (0, 3))]
    convs += [f"features.{block}.body.{n}" for block in range(2, 18) for n in (0, 3, 6)]
    for conv in [*convs, "features.18.0"]:
        yield f"{conv}.weight"
        parent, position = conv.rsplit(".", 1)
        norm = f"{parent}.{int(position) + 1}"
        yield from (f"{norm}.weight", f"{norm}.bias")
        yield from (f"{norm}.bn.{name}" for name in ("running_mean", "running_var", "num_batches_tracked"))
    yield from ("classifier.0.weight", "classifier.0.bias")


def text_of(multipliers, resolution=128, model="mobilenet_v2"):
    return str(
        {
            "model_name": model,
            "infer_metric_type": "flops",
            "resolution": resolution,
            "stage_cout_mults": multipliers,
            "infer_metric": 69.150208,
            "infer_metric_target": 70,
        }
    )


SMALLEST = text_of([0.75] * 9)


@pytest.fixture(scope="module")
def algorithm(build_algorithm):
    """MobileNetV2 with 10 classes and targets from 70 to 300 MFLOPs; left as it was."""
    return build_algorithm(**{"architecture.head.num_classes": 10})


@pytest.fixture(scope="module")
def weights(algorithm):
    """Its weights as the authors' program saves them."""
    own = algorithm.architecture.state_dict()
    return {f"module.{name}": tensor for name, tensor in zip(their_names(), own.values(), strict=True)}


@pytest.fixture
def write(weights, tmp_path):
    """``write({70: {text: score}})``: a checkpoint in the authors' format; options replace or, if None, remove keys."""

    def write_file(pools=None, **options):
        arch_pools = {"max_size": 50, "pools": {"flops": {70: {SMALLEST: -2.0}} if pools is None else pools}}
        content = dict(model=weights, arch_pools=arch_pools, last_epoch=249) | options
        path = tmp_path / "theirs.pt"
        torch.save({key: value for key, value in content.items() if value is not None}, path)
        return path

    return write_file


def converted_pools(checkpoint):
    """{target: {(widths…, resolution): (score, resource)}} of an output checkpoint."""
    pools = checkpoint["pss"]["pools"]["flops"]
    return {
        int(target): {
            (*(entry["channels"][group] for group in GROUPS), entry["resolution"]): (entry["score"], entry["resource"])
            for entry in entries
        }
        for target, entries in pools.items()
    }


def network_of(text):
    """The network of one of the authors' texts: widths in multiples of 8, at least 0.9 of what is wanted."""
    record = ast.literal_eval(text)
    widths = []
    for base, multiplier in zip(BASE_WIDTHS, record["stage_cout_mults"], strict=False):
        width = max(8, 8 * math.floor((base * multiplier + 4) / 8))
        widths.append(width + 8 if width < 0.9 * base * multiplier else width)
    return (*widths, record["resolution"])


# Weights


def test_names(algorithm, weights):
    renamed = rename_weights(weights)
    own = {f"architecture.{name}": tensor for name, tensor in algorithm.architecture.state_dict().items()}
    assert len(renamed) == 314 and list(renamed) == list(own)
    assert all(renamed[name] is weights[theirs] for name, theirs in zip(own, weights, strict=True))
    check_state_dict(algorithm, renamed)
    assert list(rename_weights({n.removeprefix("module."): t for n, t in weights.items()})) == list(renamed)


def test_logits_of_the_reference(reference, build_algorithm):
    data = torch.load(reference / "mbv2_forward.pt", weights_only=True)
    small = build_algorithm(
        **{
            "architecture.resolutions": [32, 40, 48, 56, 64],
            "architecture.head.num_classes": 10,
            "data_preprocessor.mean": None,
            "data_preprocessor.std": None,
            "data_preprocessor.to_rgb": False,
            "constraints": [dict(metric="flops", first=6, last=24, step=1)],
        }
    )
    small.load_state_dict(rename_weights(data["state_dict"]))
    small.eval()
    for record, expected in zip(data["subnets"], data["logits_eval"], strict=True):
        widths = dict(zip(GROUPS, record["channels"][:8], strict=True))
        small.mutator.set_choices(widths | dict(resolution=record["resolution"]))
        with torch.no_grad():
            assert (small(data["inputs"], mode="tensor") - expected).abs().max() < 1e-4


# Pools


def test_reference_checkpoint(reference, algorithm):
    """Compared with what follows from the texts alone: their own cost less that of 990 classes, rounded to tens."""
    source = PSSNetCheckpoint.read(reference / "mbv2_checkpoint_249.pt")
    assert source.num_classes == 10 and source.last_epoch == 249
    expected = {target: {} for target in range(70, 301, 10)}
    moved = 0
    for theirs, pool in source.pools["flops"].items():
        for text, score in pool.items():
            resource = ast.literal_eval(text)["infer_metric"] - MFLOPS_OF_990_CLASSES
            target = round(resource / 10) * 10
            expected[target][network_of(text)] = score, pytest.approx(resource, abs=1e-6)
            moved += target != theirs
    checkpoint, notes = source.convert(algorithm)
    assert converted_pools(checkpoint) == expected
    assert sum(map(len, expected.values())) == 93 and moved == 10
    assert "93 entries are 93 distinct subnets" in notes[0] and "10 subnets moved" in notes[1] and len(notes) == 2
    check_state_dict(algorithm, checkpoint["state_dict"])
    raw = rename_weights(dict(zip(their_names(), source.weights.values(), strict=True)))
    assert all(torch.equal(checkpoint["state_dict"][name], tensor) for name, tensor in raw.items())


def test_same_networks_are_merged_with_their_best_score(write, algorithm):
    generator = np.random.default_rng(0)
    texts = {}
    for _ in range(300):  # in few networks: only two widths and the last conv's, which counts for nothing, vary
        multipliers = [1.0, *([0.75] * 5), *generator.uniform(0.9, 1.0, 3).round(3).tolist()]
        texts[text_of(multipliers)] = -float(generator.random())
    names = list(texts)
    # The same networks also in a pool to which they do not belong.
    pools = {100: {n: texts[n] for n in names[:200]}, 70: {n: texts[n] for n in names[200:]}}
    best = {}
    for text, score in texts.items():
        best.setdefault(network_of(text), []).append(score)
    checkpoint, notes = PSSNetCheckpoint.read(write(pools)).convert(algorithm)
    found = {network: score for pool in converted_pools(checkpoint).values() for network, (score, _) in pool.items()}
    assert found == {network: max(scores) for network, scores in best.items()}
    assert 5 < len(found) < 100 and max(map(len, best.values())) > 5
    assert f"{len(texts)} entries are {len(found)} distinct subnets" in notes[0]


def test_entries_of_no_target_are_dropped(write, build_algorithm):
    narrow = build_algorithm(
        **{"architecture.head.num_classes": 10, "constraints": [dict(metric="flops", first=70, last=90, step=10)]}
    )
    pools = {70: {SMALLEST: -2.0}, 300: {text_of([1.0] * 9, 224): -1.0}}
    checkpoint, notes = PSSNetCheckpoint.read(write(pools)).convert(narrow)
    converted = converted_pools(checkpoint)
    assert list(converted) == [70, 80, 90] and list(map(len, converted.values())) == [1, 0, 0]
    assert "1 subnets dropped" in notes[-1] and "from 70 to 90" in notes[-1]


def test_metrics_of_the_config(write, algorithm):
    pool = {70: {SMALLEST: -2.0}}
    arch_pools = {"pools": {"flops": pool, "latency_cpu": {12000: {SMALLEST: -2.0}}}}
    checkpoint, notes = PSSNetCheckpoint.read(write(arch_pools=arch_pools)).convert(algorithm)
    assert list(checkpoint["pss"]["pools"]) == ["flops"] and "latency_cpu" in notes[0]
    source = PSSNetCheckpoint.read(write(arch_pools={"pools": {"latency_cpu": pool}}))
    with pytest.raises(CheckpointError, match=r"has pools for \['latency_cpu'\], the config's constraints .*'flops'"):
        source.convert(algorithm)


# From the command line to an exported network

# Of images as large as the largest resolution.
PIPELINE = [dict(type="mmcls.Resize", scale=224), dict(type="mmcls.PackClsInputs")]


def test_tests_and_exports_as_our_own(convert, write, tmp_path):
    wider = text_of([1.0, 1.0, *([0.75] * 7)], 136)
    pools = {70: {SMALLEST: -1.0}, 80: {}, 90: {wider: -2.0}}
    config = tmp_path / "config.py"
    config.write_text(
        f'_base_ = "{CONFIGS}/pss_mbv2_flops_digits.py"\n'
        f"model = dict(architecture=dict(resolutions={RESOLUTIONS}),\n"
        '    constraints=[dict(metric="flops", first=70, last=90, step=10)])\n'
        "train_dataloader = dict(batch_size=8, dataset=dict(indices=8))\n"
        f"test_dataloader = dict(batch_size=8, dataset=dict(indices=8, pipeline={PIPELINE}))\n"
        "test_cfg = dict(top_k=1, calibration_batches=1, selection_dataloader=None)\n"
        'visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])\n'
    )
    out = tmp_path / "ours.pth"
    done = convert("checkpoint", write(pools), out, "--config", config)
    assert done.code == 0, done.err
    assert "not to resume a training" in done.out
    read_checkpoint(out, needs_pools=True)

    options = [f"load_from={out}", "experiment_name=imported"]
    runner = build_runner(load_config(str(config), options, "none", str(tmp_path / "work")))
    runner.test()
    evaluator = runner.test_loop.build_evaluator_of_pools()
    chosen = choose_subnets(
        evaluator, list(evaluator.sampler.candidates(1)), runner.test_loop.results, runner.test_loop.criterion
    )
    export_subnets(evaluator, chosen[-1:], runner.test_dataloader, tmp_path / "nets", ["torch", "bundle"])
    (entry,) = read_manifest(tmp_path / "nets")["subnets"]
    assert (*entry["channels"].values(), entry["resolution"]) == network_of(wider) != network_of(SMALLEST)
    assert entry["parity_error"] <= 1e-5


def test_reference_checkpoint_exports(reference, convert, tmp_path):
    """A subnet of the authors' own pools, in two formats."""
    config = tmp_path / "config.py"
    config.write_text(
        f'_base_ = "{CONFIGS}/pss_mbv2_flops_digits.py"\n'
        f"model = dict(architecture=dict(resolutions={RESOLUTIONS}),\n"
        '    constraints=[dict(metric="flops", first=70, last=300, step=10)])\n'
        "train_dataloader = dict(batch_size=8, dataset=dict(indices=8))\n"
        f"test_dataloader = dict(batch_size=4, dataset=dict(indices=4, pipeline={PIPELINE}))\n"
        "test_cfg = dict(calibration_batches=1, selection_dataloader=None)\n"
        'visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])\n'
    )
    out = tmp_path / "ours.pth"
    done = convert("checkpoint", reference / "mbv2_checkpoint_249.pt", out, "--config", config)
    assert done.code == 0, done.err
    options = [f"load_from={out}", "experiment_name=reference"]
    runner = build_runner(load_config(str(config), options, "none", str(tmp_path / "work")))
    runner.call_hook("before_run")
    runner.load_or_resume()
    evaluator = runner.test_loop.build_evaluator_of_pools()
    chosen = choose_subnets(
        evaluator, choose_pools(["flops=70"], evaluator.sampler.candidates(1)), [], runner.test_loop.criterion
    )
    export_subnets(evaluator, chosen, runner.test_dataloader, tmp_path / "nets")
    (entry,) = read_manifest(tmp_path / "nets")["subnets"]
    assert (entry["target"], entry["selected_by"], entry["accuracy"]) == (70, "score", None)
    assert 65 <= entry["resource"] <= 75 and entry["parity_error"] <= 1e-5


def test_default_config_takes_the_number_of_classes(convert, write, weights, tmp_path):
    smaller = {n: t[:7] if "classifier" in n else t for n, t in weights.items()}
    done = convert("checkpoint", write(model=smaller), tmp_path / "ours.pth")
    assert done.code == 0, done.err
    assert "pss_mbv2_flops.py --cfg-options model.architecture.head.num_classes=7" in done.out
    checkpoint = torch.load(tmp_path / "ours.pth", weights_only=True)
    weight = checkpoint["state_dict"]["architecture.head.fc.weight"]
    assert weight.shape == (7, 1280)
    # Theirs was a view of a larger tensor, which would be saved whole.
    assert weight.untyped_storage().nbytes() == 4 * weight.numel()


# What cannot be converted


def call_of(command):
    return f"__import__('os').system({command!r})"


BAD_ENTRIES = {
    "a call": (lambda marker: call_of(f"mkdir {marker}"), ["refused", "__import__"]),
    "a call as a value": (
        lambda marker: SMALLEST.replace("128", call_of(f"mkdir {marker}")),
        ["refused", "__import__"],
    ),
    "attributes": (lambda marker: "().__class__.__bases__", ["refused"]),
    "not a table": (lambda marker: "[1, 2]", ["refused", "[1, 2]"]),
    "too long": (lambda marker: SMALLEST + " " * 2000, ["refused"]),
    "deep": (lambda marker: "[" * 900 + "]" * 900, ["refused"]),
    "a large number": (lambda marker: SMALLEST.replace("0.75", "1" + "0" * 100, 1), ["is not in (0, 1]"]),
    "infinity": (lambda marker: SMALLEST.replace("0.75", "1e999", 1), ["multiplier inf is not in (0, 1]"]),
    "a negative multiplier": (lambda marker: SMALLEST.replace("0.75", "-0.75", 1), ["-0.75 is not in (0, 1]"]),
    "a text as multiplier": (lambda marker: SMALLEST.replace("0.75", "'a'", 1), ["'a' is not in (0, 1]"]),
    "too narrow": (lambda marker: text_of([0.5] + [0.75] * 8), ["stem = 16 is not in the search space", "[24, 32]"]),
    "resolution": (lambda marker: text_of([0.75] * 9, 130), ["resolution = 130 is not in the search space", "136"]),
    "no whole resolution": (lambda marker: text_of([0.75] * 9, 128.0), ["'resolution'"]),
    "eight multipliers": (lambda marker: text_of([0.75] * 8), ["needs 9 'stage_cout_mults'"]),
    "another model": (lambda marker: text_of([0.75] * 14, model="mobilenet_v1"), ["'mobilenet_v1'", "mobilenet_v2"]),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_bad_entry(write, algorithm, tmp_path, case):
    make, words = BAD_ENTRIES[case]
    source = PSSNetCheckpoint.read(write({70: {make(tmp_path / "executed"): -1.0}}))
    with pytest.raises(CheckpointError, match=r"theirs.pt, pool flops = 70: ") as caught:
        source.convert(algorithm)
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message and len(message) < 1000
    assert not (tmp_path / "executed").exists()


def test_the_malicious_entry_would_do_harm(tmp_path):
    make, _ = BAD_ENTRIES["a call"]
    eval(make(tmp_path / "executed"))
    assert (tmp_path / "executed").exists()


def test_malicious_entry_leaves_the_output_alone(write, refuses, tmp_path):
    make, words = BAD_ENTRIES["a call as a value"]
    refuses("checkpoint", write({70: {make(tmp_path / "executed"): -1.0}}), *words)


class Evil:
    """Unpickling this makes the file ``executed``."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class Getattr:
    """Unpickling this looks an attribute up."""

    def __reduce__(self):
        return getattr, (1, "real")


def truncated(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


BAD_FILES = {
    "missing": (lambda path: path.unlink(), ["does not exist"]),
    "empty": (lambda path: path.write_bytes(b""), ["theirs.pt"]),
    "text": (lambda path: path.write_text("epoch 249\n"), ["theirs.pt"]),
    "truncated": (truncated, ["is truncated", "copy it again"]),
    "a list": (lambda path: torch.save([1], path), ["needs 'model' and 'arch_pools'", "list"]),
    "our own": (
        lambda path: torch.save({"state_dict": {}, "meta": {}, "pss": {}}, path),
        ["needs 'model' and 'arch_pools'", "['meta', 'pss', 'state_dict']"],
    ),
    "a latency table": (lambda path: path.write_bytes(pickle.dumps({("Conv2d", 1): 1.0})), ["theirs.pt"]),
    "malicious": (lambda path: torch.save({"model": Evil(path.parent / "executed")}, path), ["refused", "mkdir"]),
    "malicious getattr": (lambda path: torch.save({"a": Getattr()}, path), ["refused", "getattr"]),
    "malicious pickle": (lambda path: path.write_bytes(pickle.dumps(Evil(path.parent / "executed"))), ["theirs.pt"]),
    "malicious old format": (
        lambda path: torch.save({"model": Evil(path.parent / "executed")}, path, _use_new_zipfile_serialization=False),
        ["refused", "mkdir"],
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(write, refuses, case):
    spoil, words = BAD_FILES[case]
    path = write()
    spoil(path)
    refuses("checkpoint", path, *words)


BAD_CONTENTS = {
    "no pools": (dict(arch_pools={}), ["has no pools"]),
    "pools of another shape": (dict(arch_pools={"pools": {"flops": [1]}}), ["not a table of targets"]),
    "a pool of another shape": (dict(pools={70: [1]}), ["flops = 70 is not a table of subnets"]),
    "a target that is no number": (dict(pools={"a": {}}), ["flops = 'a'"]),
    "a key that is no text": (dict(pools={70: {1: -1.0}}), ["not a text and a finite score: 1: -1.0"]),
    "a score that is no number": (dict(pools={70: {SMALLEST: "high"}}), ["'high'"]),
    "a score that is not finite": (dict(pools={70: {SMALLEST: math.nan}}), ["nan"]),
    "no model": (dict(model=None), ["needs 'model'"]),
    "a model of another shape": (dict(model=[1]), ["not a state dict"]),
    "an empty model": (dict(model={}), ["features.0.0.weight is missing"]),
    "another network": (dict(model={"conv1.weight": torch.zeros(1)}), ["MobileNetV2", "conv1.weight"]),
    "neither MobileNetV1 nor V2": (
        dict(model={f"module.features.{n}.body.0.weight": torch.zeros(1) for n in range(30)}),
        ["MobileNetV1 or MobileNetV2", "'module.features.0.body.0.weight'"],
    ),
    "a tensor twice": (
        dict(model={name: torch.zeros(1) for name in ("module.features.0.0.weight", "features.0.0.weight")}),
        ["another tensor of the same meaning", "'features.0.0.weight'"],
    ),
}


@pytest.mark.parametrize("case", BAD_CONTENTS)
def test_bad_content(write, case):
    options, words = BAD_CONTENTS[case]
    path = write(**options)
    with pytest.raises(CheckpointError, match=r"theirs\.pt") as caught:
        PSSNetCheckpoint.read(path)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_weights_of_another_shape(write, weights, refuses):
    lacking = {name: tensor for name, tensor in weights.items() if "features.7.body.4.bias" not in name}
    refuses("checkpoint", write(model=lacking), "another model", "layer4.0.conv.1.bn.bias is missing")
    name = "module.features.7.body.0.weight"
    refuses("checkpoint", write(model=weights | {name: torch.zeros(8)}), "another backbone", "layer4.0.conv.0")


def test_config_with_another_number_of_classes(write, refuses):
    config = CONFIGS / "pss_mbv2_flops.py"
    refuses("checkpoint", write(), "another number of classes", "num_classes", options=("--config", config))


def test_out_cannot_be_written(convert, write, tmp_path):
    for out in (tmp_path, tmp_path / "no folder" / "ours.pth"):
        before = sorted(tmp_path.iterdir())
        done = convert("checkpoint", write(), out)
        assert done.code == 1 and f"cannot be converted to {out}" in done.err.splitlines()[-1]
        assert sorted({*tmp_path.iterdir()} - {tmp_path / "theirs.pt"}) == [p for p in before if p.name != "theirs.pt"]


def test_reading_leaves_what_torch_allows_as_it_was(write, tmp_path):
    before = set(torch.serialization.get_safe_globals())
    assert len(before) > 5  # compat's
    PSSNetCheckpoint.read(write())
    path = write(rng=Evil(tmp_path / "executed"))
    with pytest.raises(CheckpointError):
        PSSNetCheckpoint.read(path)
    assert set(torch.serialization.get_safe_globals()) == before


def test_numpy_arrays_are_left_out(write):
    state = ("MT19937", np.arange(624, dtype=np.uint32), 3)
    assert PSSNetCheckpoint.read(write(np_random_state=state)).last_epoch == 249
    with pytest.raises(CheckpointError, match="'model' is not a state dict"):
        PSSNetCheckpoint.read(write(model={"features.0.0.weight": np.zeros(3)}))


def test_scores_may_be_numpy_scalars(write, algorithm):
    checkpoint, _ = PSSNetCheckpoint.read(write({70: {SMALLEST: np.float64(-2.5)}})).convert(algorithm)
    ((score, _),) = converted_pools(checkpoint)[70].values()
    assert score == -2.5 and type(score) is float
