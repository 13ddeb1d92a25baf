from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import tracemalloc
import zlib

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from pss_razor.core import ExportError
from pss_razor.deploy import bundle, load_bundle, round_bn_statistics, save_bundle


def _change(path, changes):
    tensors = safetensors.torch.load(path.read_bytes())
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    path.write_bytes(safetensors.torch.save(tensors))


def _pack(description):
    data = description if isinstance(description, bytes) else json.dumps(description).encode()
    return torch.frombuffer(bytearray(zlib.compress(data)), dtype=torch.uint8)


def _description(path):
    packed = safetensors.torch.load(path.read_bytes())["description"]
    return json.loads(zlib.decompress(packed.numpy().tobytes()))


def test_round_trip(supernet_subnets, bundle_file):
    subnets, preprocessing = load_bundle(bundle_file)
    assert preprocessing == {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "channel_order": "RGB"}
    assert subnets == tuple(supernet_subnets)  # all but the networks
    images = torch.randn(2, 3, 32, 32)
    for loaded, saved in zip(subnets, supernet_subnets, strict=True):
        assert loaded.net.spec == saved.net.spec
        state = loaded.net.state_dict()
        for name, tensor in saved.net.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(state[name], tensor), name
        expected = saved.net(images)
        assert (loaded.net(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_weights_are_stored_and_held_once(supernet_subnets, bundle_file):
    nets = [subnet.net for subnet in load_bundle(bundle_file).subnets]
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for n in nets for p in n.parameters()}
    full = {}  # the widths that occur, which the largest subnets need not have all together
    for net in nets:
        for name, parameter in net.named_parameters():
            shape = full.get(name, parameter.shape)
            full[name] = torch.Size(map(max, shape, parameter.shape))
    assert sum(storages.values()) == 4 * sum(shape.numel() for shape in full.values())
    assert len(storages) == len(full)


def test_size(supernet_subnets, bundle_file):
    statistics = sum(b.numel() for s in supernet_subnets for b in s.net.buffers() if b.dim())
    weights = sum(t.numel() for n, t in safetensors.torch.load(bundle_file.read_bytes()).items() if n[:7] == "layers.")
    rest = bundle_file.stat().st_size - 4 * weights - 2 * statistics
    assert 0 < rest < 64 * 1024


def test_rounding_keeps_eleven_bits_and_is_idempotent():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-30, 1e-3, 1.0, 7e4, 1e30):
        values = torch.randn(1000, generator=generator) * scale
        rounded = round_bn_statistics(values)
        assert ((rounded - values).abs() <= 2**-11 * values.abs() + 2**-38 * values.abs().max()).all()
        assert not torch.equal(rounded, values)
        assert torch.equal(round_bn_statistics(rounded), rounded)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.9999999, 2**-28 + 2**-40], [-3.4028235e38, 1.0], [1e-45, 0.0], []])
def test_rounding_at_the_edges(values):
    rounded = round_bn_statistics(torch.tensor(values, dtype=torch.float32).clamp(-3e38, 3e38))
    assert torch.isfinite(rounded).all() and torch.equal(round_bn_statistics(rounded), rounded)


@pytest.mark.parametrize("values", [torch.tensor([float("nan")]), torch.ones(2, dtype=torch.float64)])
def test_rounding_refuses(values):
    with pytest.raises(ExportError, match="BN statistics are"):
        round_bn_statistics(values)


def test_save_refuses_statistics_that_are_not_rounded(supernet_subnets, tmp_path):
    net = supernet_subnets[1].net
    statistics = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)).running_var
    statistics[0] += 1e-5
    with pytest.raises(ExportError, match=r"running_var' of subnet '\w+' has more digits"):
        save_bundle(tmp_path / "bundle", supernet_subnets, {})
    assert not os.listdir(tmp_path)


def test_save_refuses_subnets_that_share_no_weights(supernet_subnets, tmp_path):
    next(supernet_subnets[0].net.parameters()).data[0] += 1
    with pytest.raises(ExportError, match="is not a part of the same weight"):
        save_bundle(tmp_path / "bundle", supernet_subnets, {})


def test_save_refuses_what_cannot_be(supernet_subnets, tmp_path):
    path = tmp_path / "bundle"
    with pytest.raises(ExportError, match="no subnet"):
        save_bundle(path, [], {})
    with pytest.raises(ExportError, match="two subnets are named"):
        save_bundle(path, [supernet_subnets[0]] * 2, {})
    with pytest.raises(ExportError, match="not JSON"):
        save_bundle(path, supernet_subnets, {"mean": torch.ones(3)})
    next(supernet_subnets[0].net.parameters()).data.view(-1)[0] = float("nan")
    with pytest.raises(ExportError, match="NaN"):
        save_bundle(path, supernet_subnets, {})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("target", float("nan")),
        ("accuracy", "high"),
        ("resources", {"flops": "few"}),
        ("channels", [1]),
        ("resolution", 10**6),
        ("resolution", 48),
    ],
)
def test_bad_records(supernet_subnets, field, value):
    with pytest.raises(ExportError, match=field):
        dataclasses.replace(supernet_subnets[0], **{field: value})


@pytest.mark.parametrize("keep", [0, 7, 300, -1])
def test_truncated(bundle_file, keep):
    bundle_file.write_bytes(bundle_file.read_bytes()[:keep])
    with pytest.raises(ExportError, match="is truncated or not a safetensors file"):
        load_bundle(bundle_file)


def test_not_a_file(tmp_path):
    with pytest.raises(ExportError, match="not a file; give the bundle"):
        load_bundle(tmp_path)
    with pytest.raises(ExportError, match="does not exist"):
        load_bundle(tmp_path / "none")


def test_sizes_that_lie(bundle_file):
    data = bundle_file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    bundle_file.write_bytes((2**40).to_bytes(8, "little") + data[8:])
    with pytest.raises(ExportError, match="truncated"):
        load_bundle(bundle_file)
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name.startswith("layers."))
    header[name]["shape"] = [2**31, 2**31]
    header = json.dumps(header).encode()
    bundle_file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    with pytest.raises(ExportError, match="truncated"):
        load_bundle(bundle_file)


def test_tensors_that_do_not_fit(bundle_file):
    original = bundle_file.read_bytes()
    tensors = safetensors.torch.load(original)
    weight = next(name for name in tensors if name.endswith("conv.weight"))
    nan = tensors[weight].clone()
    nan.view(-1)[0] = float("nan")
    exponents = tensors["bn_exponents.0"]
    cases = [
        ({weight: None}, "is missing"),
        ({weight: nan}, "NaN or infinite"),
        ({weight: tensors[weight][1:]}, "but .* are there"),
        ({weight: tensors[weight][0, 0]}, "but .* are there"),
        ({weight: tensors[weight].half()}, "is torch.float16"),
        ({weight: torch.cat([tensors[weight]] * 2)}, "is more than the subnets use"),
        ({"layers.more": torch.ones(3)}, "is more than the subnets use"),
        ({"bn_statistics.0": None}, "'bn_statistics.0' is missing"),
        ({"bn_statistics.0": tensors["bn_statistics.0"][:-1]}, "BN statistics are"),
        ({"bn_statistics.0": tensors["bn_statistics.0"].float()}, "BN statistics are"),
        ({"bn_statistics.0": torch.full_like(tensors["bn_statistics.0"], float("inf"))}, "NaN or infinite"),
        ({"bn_exponents.0": exponents[:-1]}, "exponents of the BN statistics are"),
        ({"bn_exponents.0": torch.full_like(exponents, -(2**15))}, "an exponent .* is beyond 200"),
        ({"bn_exponents.0": torch.full_like(exponents, 200)}, "NaN or infinite"),
        ({"description": None}, "'description' is missing"),
        ({"description": tensors["description"].float()}, "instead of bytes"),
        ({"description": tensors["description"][:-5]}, "the description is damaged"),
        ({"description": torch.cat([tensors["description"]] * 2)}, "the description is damaged"),
        ({"description": _pack(b"[" * 10**5)}, "nests deeper"),
        ({"description": _pack(b"{")}, "damaged"),
        ({"description": _pack([])}, "it is not a bundle"),
    ]
    for changes, message in cases:
        bundle_file.write_bytes(original)
        _change(bundle_file, changes)
        with pytest.raises(ExportError, match=f"bundle.safetensors: .*{message}"):
            load_bundle(bundle_file)


def test_a_description_that_inflates_without_end(bundle_file, monkeypatch):
    monkeypatch.setattr(bundle, "_MAX_DESCRIPTION_BYTES", 2**20)
    _change(bundle_file, {"description": _pack(b"[" + b" " * 2**24)})
    with pytest.raises(ExportError, match="more than 1048576 bytes"):
        load_bundle(bundle_file)


def test_descriptions_that_lie(bundle_file):
    original = bundle_file.read_bytes()

    def refuses(change, message):
        description = _description(bundle_file)
        change(description)
        _change(bundle_file, {"description": _pack(description)})
        with pytest.raises(ExportError, match=f"bundle.safetensors: .*{message}"):
            load_bundle(bundle_file)
        bundle_file.write_bytes(original)

    def conv(description):
        return next(node for node in description["nodes"] if node.get("type") == "Conv2d")

    refuses(lambda d: d.update(format=99), "format 99 is unknown")
    refuses(lambda d: d.update(format=True), "format is True")
    refuses(lambda d: d.update(nodes={}), "nodes is {}")
    refuses(lambda d: d.update(subnets=[]), "there are 0 subnets")
    refuses(lambda d: d.update(subnets=d["subnets"] * 1000), "a bundle has 1 to 1024")
    refuses(lambda d: d["subnets"][0].update(nodes=[0] * 2**20), "operations in all")
    refuses(lambda d: d["subnets"][0].update(nodes=[0, 1, 10**9]), "its nodes are")
    refuses(lambda d: d["subnets"][0].update(nodes=[-1]), "its nodes are")
    refuses(lambda d: d["subnets"][0].pop("accuracy"), "instead of")
    refuses(lambda d: d["subnets"][0].update(resolution=10**9), "resolution is")
    refuses(lambda d: d["subnets"][0].update(name=d["subnets"][1]["name"]), "two subnets have the same name")
    refuses(lambda d: d["subnets"].__setitem__(0, "x"), "instead of")
    refuses(lambda d: conv(d).update(type="torch.nn.LSTM"), "not whitelisted")
    refuses(lambda d: conv(d)["config"].update(out_channels=2**24), "but .* are there")


def _repeat_across(description, times):
    description["nodes"][0]["args"] = [["x" * 1000] * 20] * 10
    for subnet in description["subnets"]:
        subnet["nodes"] = [0] * times


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: _repeat_across(d, 3_400), "operations in all, which take 4[0-9]{9} bytes written out"),
        (lambda d: d["subnets"][0].update(nodes=[1] * 10**5), "operations in all"),
        (lambda d: d["subnets"][0].update(name="x" * 20 * 2**20), "description has more than"),
        (lambda d: d["subnets"][0].update(name="x" * 257), "name is 'x.*at most 256 characters"),
        (lambda d: d["subnets"][0].update(target=10**310), "target is"),
        (lambda d: d["nodes"][1].update(name="x" * 513), "has a name of 513 characters"),
        (lambda d: d["nodes"][1].update(target=".".join("abc" * 20)), "has a module name of too many parts"),
        (lambda d: d["nodes"][1].update(args=[0] * 257), "has too much of arguments"),
        (lambda d: d["nodes"][1]["config"].update(kernel_size=[1] * 9), "has a bad value for kernel_size"),
    ],
    ids=["node", "operations", "long name", "name", "number", "name of a node", "parts", "arguments", "sizes"],
)
def test_a_small_file_that_asks_for_much(bundle_file, change, message):
    """The first of them, of 6 kB, took 38 s and 7.6 GB; the third 9 s and 2.3 GB."""
    description = _description(bundle_file)
    change(description)
    _change(bundle_file, {"description": _pack(description)})
    size = bundle_file.stat().st_size
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(ExportError, match=f"bundle.safetensors: .*{message}"):
        load_bundle(bundle_file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - start < 5
    assert peak < 8 * 40 * size + 2**26


def test_bundles_of_large_networks_are_far_from_the_limits(supernet_subnets):
    """ResNet-152: 520 operations with up to 300 characters each, 151,424 channels; 1024 of its subnets."""
    stored = 60_192_808 * 4 + 1024 * 2 * 151_424 * 2
    written_out = 1024 * 520 * 300
    assert written_out < 0.3 * stored and written_out < bundle._description_limit(stored)


def test_damaged_files_are_refused(supernet_subnets, tmp_path):
    """Of flipped bytes in weights, most went unseen."""
    path = tmp_path / "bundle.safetensors"
    save_bundle(path, supernet_subnets[:1], {})
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    generator = torch.Generator().manual_seed(0)
    for position in torch.randint(header, len(data), (12,), generator=generator).tolist():
        data[position] ^= 1
        path.write_bytes(data)
        with pytest.raises(
            ExportError, match=r"bundle.safetensors: the content is not what was written .*copy it again"
        ):
            load_bundle(path)
        data[position] ^= 1
    path.write_bytes(data)
    assert load_bundle(path).subnets == tuple(supernet_subnets[:1])


def test_the_digest_is_of_names_shapes_types_and_bytes(bundle_file):
    with safetensors.safe_open(bundle_file, "pt") as file:
        digest = file.metadata()["sha256"]
    tensors = safetensors.torch.load(bundle_file.read_bytes())
    expected = hashlib.sha256(b"null")
    for name in sorted(tensors):
        array = tensors[name].numpy()
        expected.update(f"\0{name}\0torch.{array.dtype}\0{array.shape}\0".encode() + array.tobytes())
    assert digest == expected.hexdigest()


def test_files_of_version_0_1_have_no_digest(supernet_subnets, bundle_file):
    _change(bundle_file, {})
    assert load_bundle(bundle_file).subnets == tuple(supernet_subnets)


def test_the_same_content_is_the_same_file(supernet_subnets, tmp_path):
    files = set()
    for _ in range(8):
        save_bundle(tmp_path / "bundle", supernet_subnets[:1], {})
        files.add((tmp_path / "bundle").read_bytes())
    assert len(files) == 1


def test_metadata_that_is_not_ours(bundle_file):
    """A digest that a flipped byte in its name hides."""
    data = bundle_file.read_bytes()
    bundle_file.write_bytes(data.replace(b'"sha256"', b'"sha257"'))
    with pytest.raises(ExportError, match="is damaged or not one of our files"):
        load_bundle(bundle_file)
