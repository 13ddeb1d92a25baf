"""For each kind of file that this project reads: how a hostile one is made, and how it is read."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mutation
import numpy as np
import safetensors.torch
import torch
import yaml
from torch import Tensor

from pss_razor.checkpoints.checkpoint import check_state_dict, get_sampler_state, read_checkpoint
from pss_razor.comparison.evidence import MEMBER_COLUMNS, Evidence, Pick, Run, read_evidence
from pss_razor.comparison.evidence_report import format_evidence
from pss_razor.converters.pssnet_checkpoint import PSSNetCheckpoint
from pss_razor.converters.pssnet_latency_table import read_pssnet_latencies
from pss_razor.core import AdditiveCost, Constraint, CostTerm, Dimension, PrioritizedSubnetSampler, SearchSpace
from pss_razor.core.cost_graph import BlockGeometry
from pss_razor.datasets.idx_file import read_idx_file
from pss_razor.deploy import (
    AdaptiveModel,
    BundledSubnet,
    OnnxAdaptiveModel,
    load_subnet,
    read_manifest,
    save_bundle,
    save_subnet,
)
from pss_razor.deploy.bundle import round_bn_statistics
from pss_razor.deploy.files import write_tensors
from pss_razor.engine.launch import load_config
from pss_razor.estimators.latency.latency_table import LatencyTable
from pss_razor.evaluation.results import read_document
from pss_razor.export.record import ExportRecord
from pss_razor.models.searched_subnet import _check_subnet, _read_yaml
from pss_razor.registry import MODELS
from pss_razor.static import StaticNet

from mmengine.logging import MessageHub


class Kind(NamedTuple):
    """``make`` writes a hostile file or folder at a path that is new; ``read`` reads it as the project does."""

    make: Callable[[random.Random, Path], None]
    read: Callable[[Path], Any]


def node(name: str, op: str, target: str, *args: Any, **fields: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "target": target, "args": list(args), "kwargs": {}, **fields}


# Of a network with six channels: they are parts of eight, as behind a concatenation.
_SIX = [(0, 4), (6, 2)]
_PARTS_OF_SIX = {
    "layers.stem.conv.weight": {0: _SIX},
    "layers.stem.bn.weight": {0: _SIX},
    "layers.stem.bn.bias": {0: _SIX},
    "layers.fc.weight": {1: _SIX},
}


def network(channels: int, resolution: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Spec and tensors of a small network, prefixes or other parts of those of one with more channels."""
    ref = lambda name: {"node": name}  # noqa: E731
    conv = dict(kernel_size=[3, 3], stride=[2, 2], padding=[1, 1], dilation=[1, 1], groups=1, bias=False)
    conv |= dict(in_channels=3, out_channels=channels, padding_mode="zeros")
    bn = dict(num_features=channels, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True)
    nodes = [
        node("images", "input", "images"),
        node("conv", "module", "stem.conv", ref("images"), type="Conv2d", config=conv),
        node("bn", "module", "stem.bn", ref("conv"), type="BatchNorm2d", config=bn),
        node("act", "module", "act", ref("bn"), type="ReLU", config=dict(inplace=True)),
        node("sum", "function", "operator.add", ref("act"), ref("act")),
        node("pool", "function", "torch.nn.functional.adaptive_avg_pool2d", ref("sum"), {"tuple": [1, 1]}),
        node("size", "method", "size", ref("pool"), 0),
        node("view", "method", "view", ref("pool"), ref("size"), -1),
        node(
            "fc",
            "module",
            "fc",
            ref("view"),
            type="Linear",
            config=dict(in_features=channels, out_features=5, bias=True),
        ),
        node("output", "output", "output", ref("fc")),
    ]
    torch.manual_seed(0)
    full = {"stem.conv.weight": torch.randn(8, 3, 3, 3), "fc.weight": torch.randn(5, 8), "fc.bias": torch.randn(5)}
    full |= {
        f"stem.bn.{name}": round_bn_statistics(torch.rand(8) + 0.5)
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    own = [0, 1, 2, 3, 6, 7] if channels == 6 else list(range(channels))
    tensors = {name: t[own] if name.startswith("stem") else t for name, t in full.items()}
    tensors["fc.weight"] = full["fc.weight"][:, own]
    tensors["stem.bn.num_batches_tracked"] = torch.tensor(0)
    return {"format": 1, "resolution": resolution, "nodes": nodes}, {
        f"layers.{k}": v.contiguous() for k, v in tensors.items()
    }


def bundle_bytes(folder: Path) -> bytes:
    subnets = []
    for channels in (4, 6, 8):
        spec, tensors = network(channels, 16)
        tensors = {name: round_bn_statistics(t) if "running" in name else t for name, t in tensors.items()}
        subnets.append(
            BundledSubnet(
                net=StaticNet.from_tensors(spec, tensors),
                parts=_PARTS_OF_SIX if channels == 6 else {},
                name=f"flops_{channels}",
                metric="flops",
                target=float(channels),
                resources={"flops": channels / 2, "latency_cpu": 10.0},
                accuracy=50.0 + channels,
                channels={"stem": channels, "op": "x"},
                resolution=16,
            )
        )
    save_bundle(folder / "bundle", subnets, {"mean": [1.0, 2.0, 3.0]})
    return (folder / "bundle").read_bytes()


def mutate_tensors(tensors: dict[str, Tensor], generator: random.Random) -> dict[str, Tensor]:
    tensors = dict(tensors)
    for _ in range(generator.choice([0, 0, 0, 1, 2])):
        name = generator.choice(sorted(tensors))
        kind = generator.randrange(7)
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            tensors[generator.choice(["layers.more", "x" * 10_000, *tensors])] = torch.ones(3)
        elif kind == 2:
            tensors[name] = tensors[name].to(generator.choice([torch.float16, torch.int64, torch.bool, torch.float64]))
        elif kind == 3:
            shape = generator.choice([[0], [1] * 40, [2, 0, 2**40], [], [7, 3]])
            tensors[name] = torch.zeros(shape) if 0 not in shape or len(shape) < 3 else torch.empty(shape)
        elif kind == 4 and tensors[name].is_floating_point():
            tensors[name] = torch.full_like(tensors[name], generator.choice([float("nan"), float("inf"), 6e4]))
        elif kind == 5:
            tensors[name] = torch.cat([tensors[name].flatten()] * 2)
        elif tensors[name].dim():
            tensors[name] = tensors[name][: generator.randrange(len(tensors[name]) + 1)]
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def write_safetensors(
    path: Path, tensors: dict[str, Tensor], generator: random.Random, description: Any = None
) -> None:
    """Mostly with the digest that such content has; else without any, or of other content."""
    kind = generator.randrange(10)
    if kind < 7:
        write_tensors(path, tensors, description)
    else:
        metadata = [None, {"sha256": "0" * 64}, {"format": "pt", "x": "y" * 1000}][kind - 7]
        path.write_bytes(safetensors.torch.save(tensors, metadata=metadata))
    if generator.random() < 0.1:  # the header, which no writer would write
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = mutation.mutate(json.loads(data[8 : 8 + size]), generator)
        text = mutation.mutate_text(json.dumps(header), generator)
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def make_kinds(folder: Path) -> dict[str, Kind]:
    """All kinds; ``folder`` is for what they are made of."""
    good_bundle = safetensors.torch.load(bundle_bytes(folder))
    description = json.loads(zlib.decompress(good_bundle["description"].numpy().tobytes()))
    spec, tensors = network(6, 16)

    def bundle(generator: random.Random, path: Path) -> None:
        changed = mutation.mutate(description, generator) if generator.random() < 0.8 else description
        text = mutation.mutate_text(json.dumps(changed), generator)
        packed = torch.frombuffer(bytearray(zlib.compress(text)), dtype=torch.uint8)
        write_safetensors(path, {**mutate_tensors(good_bundle, generator), "description": packed}, generator)

    def export(generator: random.Random, path: Path) -> None:
        save_subnet(StaticNet.from_tensors(spec, tensors), path)
        changed = mutation.mutate(spec, generator) if generator.random() < 0.8 else spec
        (path / "model.json").write_bytes(mutation.mutate_text(json.dumps(changed), generator))
        write_safetensors(path / "model.safetensors", mutate_tensors(tensors, generator), generator, changed)

    subnet = {
        "metric": "flops",
        "target": 150.0,
        "resource": 149.2,
        "accuracy": 70.1,
        "parity_error": 1e-6,
        "channels": {"stem": 16, "op": "x"},
        "resolution": 160,
        "files": {"spec": "a/model.json", "onnx": "a/model.onnx"},
    }
    manifest = {"format": 1, "created": "2024", "versions": {"torch": "2"}, "preprocessing": {"mean": [1.0, 2.0]}}
    manifest["subnets"] = [subnet, {**subnet, "target": 300}]

    row = ["Conv2d", 32, 3, 8, None, 3, 2, 1, [16, 24], 12.5]
    table = {"format": 3, "unit": "us", "device": "cpu", "provenance": {"threads": 1}, "correction": [1.1, -3.0]}
    table |= {"interpolate": True, "columns": [*BlockGeometry._fields, "latency_us"], "rows": [row, ["Pool", *row[1:]]]}

    record = {"name": "flops_1", "metric": "flops", "target": 1, "metrics": {"accuracy/top1": 50.0}, **subnet}
    results = {"format": 1, "model": "x", "units": {"flops": "MFLOPs"}, "subnets": [record, {**record, "target": 2}]}
    ends = [Pick(name, None, None, {"flops": cost}, 50.0) for name, cost in (("largest", 3.0), ("smallest", 1.0))]
    picks = (*ends, *(Pick(f"flops_{t}", "flops", t, {"flops": float(t)}, 40.0 + t, 41.0, -0.5) for t in (1, 2)))
    columns: dict[str, list[float | None]] = dict(zip(MEMBER_COLUMNS, ([1.0], [41.0], [None], [-0.5]), strict=True))
    runs = tuple(Run(m, s, picks, {"flops_1": columns}, {"steps": 9}) for m in ("a", "b") for s in (0, 1))
    evidence = Evidence(
        *("accuracy/top1", "greater", 100, {"flops": "MFLOPs"}, "these", None),
        *(runs, {"flops_1": {0: 42.0}}, {"device": "cpu"}),
    )
    export_record = {
        "key": [1],
        "formats": {"torch": {"settings": None, "sha256": {"export.json": "0"}, "facts": {"parity_error": 0}}},
    }

    def json_file(content: Any, name: str) -> Callable[[random.Random, Path], None]:
        def make(generator: random.Random, path: Path) -> None:
            path.mkdir()
            changed = mutation.mutate(content, generator)
            (path / name).write_bytes(mutation.mutate_text(json.dumps(changed), generator))

        return make

    def onnx_folder(generator: random.Random, path: Path) -> None:
        json_file(manifest, "manifest.json")(generator, path)
        (path / "a").mkdir()
        (path / "a" / "model.onnx").touch()

    return {
        "bundle": Kind(bundle, AdaptiveModel.load),
        "export": Kind(export, load_subnet),
        "manifest": Kind(json_file(manifest, "manifest.json"), read_manifest),
        "manifest of ONNX files": Kind(onnx_folder, OnnxAdaptiveModel.load),
        "latency table": Kind(json_file(table, "table.json"), lambda path: LatencyTable.load(path / "table.json")),
        "results": Kind(json_file(results, "results.json"), lambda path: read_document(path / "results.json")),
        "evidence": Kind(
            json_file(json.loads(evidence.to_json()), "evidence.json"),
            lambda path: format_evidence(read_evidence(path / "evidence.json")),
        ),
        "export record": Kind(json_file(export_record, "export.json"), lambda p: ExportRecord(p, [1]).facts("torch")),
        "latency table of the authors": Kind(*_their_table()),
        "checkpoint": Kind(*_checkpoint(folder)),
        "checkpoint of the authors": Kind(*_their_checkpoint()),
        "subnet file": Kind(*_subnet_file()),
        "IDX file": Kind(_make_idx_file, lambda path: read_idx_file(path, (100, 4, 4))),
    }


NAMES = [
    *(
        "collections.OrderedDict",
        "collections.Counter",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
    ),
    *("torch.FloatStorage", "torch.LongStorage", "torch.FloatTensor", "torch.Size", "torch.device", "torch.float32"),
    *(
        "builtins.set",
        "__builtin__.set",
        "builtins.bytearray",
        "__builtin__.getattr",
        "builtins.getattr",
        "_codecs.encode",
    ),
    *("numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct", "numpy.core.multiarray.scalar"),
    *(
        "mmengine.logging.history_buffer.HistoryBuffer",
        "torch.storage.UntypedStorage",
        "os.system",
        "__main__.BlockCfg",
    ),
    *("torch._utils._rebuild_qtensor", "torch._utils._rebuild_sparse_tensor", "torch._tensor._rebuild_from_type_v2"),
]


def rewrite(path: Path, content: bytes, generator: random.Random) -> None:
    """The archive with another pickle, and now and then other records."""
    with zipfile.ZipFile(path) as source:
        records = {name: source.read(name) for name in source.namelist()}
    name = next(name for name in records if name.endswith("data.pkl"))
    records[name] = content
    kind = generator.randrange(20)
    if kind == 0:
        del records[generator.choice(sorted(records))]
    elif kind == 1:
        records[generator.choice(sorted(records))] = b"x" * generator.choice([0, 1, 100_000])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if kind == 2 else zipfile.ZIP_STORED) as target:
        for record, data in records.items():
            target.writestr(record, data)


def pickled_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as source:
        return source.read(next(name for name in source.namelist() if name.endswith("data.pkl")))


def make_checkpoint(content: dict[str, Any]) -> Callable[[random.Random, Path], None]:
    def make(generator: random.Random, path: Path) -> None:
        changed = dict(content)
        kind = generator.randrange(4)
        if kind == 0:  # of plain values, those that JSON has
            key = generator.choice([k for k, v in content.items() if _is_json(v)])
            changed[key] = mutation.mutate(content[key], generator)
        elif kind == 1:
            tensor = generator.choice(
                [
                    torch.zeros(1).expand(10**12),
                    torch.zeros(3, 4)[:, ::2],
                    torch.zeros(2**16).expand(1000, 2**16),
                    torch.zeros(0),
                    torch.zeros(2, 2, dtype=torch.float64),
                    torch.zeros(5).requires_grad_(),
                ]
            )
            first = next(k for k, v in content.items() if isinstance(v, dict) and any(map(torch.is_tensor, v.values())))
            changed[first] = {**content[first], generator.choice([*content[first], "more"]): tensor}
        try:
            torch.save(changed, path, _use_new_zipfile_serialization=generator.random() < 0.9)
        except (OverflowError, UnicodeEncodeError):
            torch.save(content, path)
        if zipfile.is_zipfile(path) and kind >= 2:
            rewrite(path, mutation.mutate_pickle(pickled_in(path), generator, NAMES), generator)

    return make


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _checkpoint(folder: Path) -> tuple[Callable[[random.Random, Path], None], Callable[[Path], Any]]:
    space = SearchSpace([Dimension("a", "channels", (1, 2, 3)), Dimension("r", "resolution", (4, 6))])
    cost = AdditiveCost(space, [CostTerm(("a",), np.array([1.0, 2, 3])), CostTerm(("r",), np.array([4.0, 6]))])
    constraints = [Constraint("flops", 5, 9, 2)]

    def make_sampler() -> PrioritizedSubnetSampler:
        return PrioritizedSubnetSampler({"flops": cost}, constraints, pool_size=3)

    sampler = make_sampler()
    subnet = space.largest
    sampler.pools["flops", 9].update(subnet, -1.0, 9.0)
    hub = MessageHub("hostile")
    for step in range(3):
        hub.update_scalar("train/loss", 1.0 / (1 + step))
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    content = {
        "meta": {"epoch": 1, "iter": 3, "cfg": "x", "classes": ["a", "b"]},
        "state_dict": model.state_dict(),
        "message_hub": hub.state_dict(),
        "numbers": {"best": np.float64(0.5), "curve": np.arange(3.0)},
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.ones(4, 3)}},
            "param_groups": [{"lr": 0.1, "params": [0, 1]}],
        },
        "pss": json.loads(json.dumps(sampler.state_dict())),
        "random_state": {"processes": []},
    }

    def read(path: Path) -> None:
        checkpoint = read_checkpoint(path, needs_pools=True)
        check_state_dict(model, checkpoint["state_dict"])
        make_sampler().load_state_dict(get_sampler_state(checkpoint))

    return make_checkpoint(content), read


def _their_checkpoint() -> tuple[Callable[[random.Random, Path], None], Callable[[Path], Any]]:
    names = ["features.0.0.weight", "features.1.body.0.weight", "features.18.0.weight", "classifier.0.weight"]
    text = "{'model_name': 'mobilenet_v2', 'resolution': 128, 'stage_cout_mults': [0.75, 1.0]}"
    content = {
        "model": {f"module.{name}": torch.randn(5, 4) for name in names},
        "arch_pools": {"max_size": 50, "pools": {"flops": {70: {text: -2.0}}}},
        "last_epoch": 249,
        "more": {"rng": np.arange(4, dtype=np.uint32)},
    }
    return make_checkpoint(content), PSSNetCheckpoint.read


def _their_table() -> tuple[Callable[[random.Random, Path], None], Callable[[Path], Any]]:
    good = (
        b"\x80\x02}("
        + b"".join(
            b"c__main__\nBlockCfg\n(X\x06\x00\x00\x00Conv2dK\x20K\x03K" + bytes([c]) + b"NK\x03K\x02K\x01t\x81"
            b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff"
            b"\xff\xffJ\xff\xff\xff\xffK\x00tbC\x08\x00\x00\x00\x00\x00\x00\x28\x40\x86R"
            for c in (8, 16, 24)
        )
        + b"u."
    )

    def make(generator: random.Random, path: Path) -> None:
        content = good
        if generator.random() < 0.3:  # a table by a newer pickler
            table = {("Conv2d", i): [1.0, (2, 3), {"x": None}] for i in range(3)}
            content = pickle.dumps(table, protocol=generator.choice([0, 2, 4, 5]))
        path.write_bytes(mutation.mutate_pickle(content, generator, NAMES))

    return make, read_pssnet_latencies


def _make_idx_file(generator: random.Random, path: Path) -> None:
    """Images of 4 × 4 pixels, gzipped: damaged before or after that, cut short, or far longer than they say."""
    items = generator.choice([3, 3, 3, 0, 101, 2**32 - 1])
    content = bytearray(b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (items, 4, 4)) + bytes(48))
    for _ in range(generator.randrange(3)):
        content[generator.randrange(generator.choice([16, len(content)]))] = generator.randrange(256)
    content += bytes(generator.choice([0, 0, 1, 2**24]))
    packed = bytearray(gzip.compress(bytes(content)))
    for _ in range(generator.randrange(2)):
        packed[generator.randrange(len(packed))] = generator.randrange(256)
    path.write_bytes(packed[: generator.choice([None, None, generator.randrange(len(packed))])])


def _subnet_file() -> tuple[Callable[[random.Random, Path], None], Callable[[Path], Any]]:
    tiny = Path(__file__).parents[1] / "tiny" / "tiny_search.py"
    supernet = MODELS.build(load_config(str(tiny), None, "none", "unused").model.architecture)
    good = {f"backbone.layers.{i}": {"chosen": "shuffle_3x3"} for i in range(2)}
    good = {
        place: {"chosen": module.choices[0]} for place, module in supernet.named_modules() if hasattr(module, "choices")
    }

    def make(generator: random.Random, path: Path) -> None:
        changed = mutation.mutate(good, generator) if generator.random() < 0.9 else good
        text = yaml.safe_dump(json.loads(json.dumps(changed).replace("\\ud800", "")), allow_unicode=True)
        kind = generator.randrange(8)
        many = generator.choice([3, 30, 300])
        extra = [
            "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9) if i else 1}]\n" for i in range(many)),
            "".join(f"b{i}: &b{i} {{{f'<<: [*b{i - 1}, *b{i - 1}]' if i else 'x: 1'}}}\n" for i in range(many)),
            f"x: {'[' * many * 10}\n",
            f"x: {'1:' * many * 100}1\n",
            f"x: !!python/object/apply:os.system [{'x' * many}]\n",
            f"? {'? ' * many * 10}\n",
            f"x: {'9' * many * 100}\n",
        ]
        text += extra[kind] if kind < len(extra) else ""
        path.write_text(text, errors="replace")

    return make, lambda path: _check_subnet(supernet, _read_yaml(str(path)))
