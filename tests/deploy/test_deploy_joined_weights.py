"""Bundles of networks whose layers stand behind concatenations: weights that are several parts of the common ones."""

import dataclasses
import json
import zlib

import numpy as np
import pytest
import safetensors.torch
import torch

from pss_razor.core import ExportError
from pss_razor.deploy import AdaptiveModel, BundledSubnet, load_bundle, round_bn_statistics, save_bundle
from pss_razor.deploy.joined_weight import JoinedWeight, extent, parts_from_json, parts_to_json, place
from pss_razor.evaluation.bn_calibration import calibrate_bn, get_bn_statistics, set_bn_statistics
from pss_razor.export.exporter import _list_parts
from pss_razor.models.static_subnet import WithoutResize
from pss_razor.registry import MODELS
from pss_razor.static import trace_static


@pytest.fixture(scope="module")
def subnets():
    """A DenseNet's, with BN statistics of their own."""
    torch.manual_seed(0)
    network = dict(type="torchvision.models.DenseNet", growth_rate=16, block_config=(3, 2), num_init_features=32,
                   bn_size=2, num_classes=5)  # fmt: skip
    classifier = MODELS.build(dict(type="ConvertedImageClassifier", network=network, input_size=32))
    supernet, images = classifier.backbone.supernet, torch.randn(4, 3, 32, 32)
    space, generator = supernet.space, np.random.default_rng(0)
    made = []
    for number, row in enumerate([np.array(space.shape) - 1, np.zeros(len(space), int), *space.draw(3, generator)]):
        subnet = space.decode(row)
        classifier.backbone.on_activate(subnet)
        calibrate_bn(classifier, [images], classifier)
        rounded = [(round_bn_statistics(m), round_bn_statistics(v)) for m, v in get_bn_statistics(classifier)]
        set_bn_statistics(classifier, rounded)
        whole = WithoutResize(classifier)
        fields = dict(name=f"subnet_{number}", metric="flops", target=float(number + 1), accuracy=50.0)
        fields |= dict(resources={"flops": float(number + 1)}, channels=dict(subnet), resolution=32)
        made.append(BundledSubnet(net=trace_static(whole, 32), parts=_list_parts(whole), **fields))
    return made


@pytest.fixture
def path(subnets, tmp_path):
    save_bundle(tmp_path / "bundle.safetensors", subnets, {})
    return tmp_path / "bundle.safetensors"


def description_of(path):
    return json.loads(zlib.decompress(safetensors.torch.load_file(path)["description"].numpy().tobytes()))


def rewrite(path, description):
    tensors = safetensors.torch.load_file(path)
    packed = zlib.compress(json.dumps(description).encode())
    tensors["description"] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    safetensors.torch.save_file(tensors, path)


def test_round_trip(subnets, path):
    assert any(len(ranges) > 2 for s in subnets for parts in s.parts.values() for ranges in parts.values())
    assert not subnets[0].parts, "the largest subnet has whole weights"
    loaded, _ = load_bundle(path)
    assert loaded == tuple(subnets)
    images = torch.randn(2, 3, 32, 32)
    for own, expected in zip(loaded, subnets, strict=True):
        assert torch.equal(own.net(images), expected.net(images))
        assert own.parts.keys() == expected.parts.keys()
        assert own.net.num_parameters == expected.net.num_parameters


def test_they_are_held_once(subnets, path):
    storages = {
        parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes()
        for subnet in load_bundle(path).subnets
        for parameter in subnet.net.parameters()
    }
    assert sum(storages.values()) == 4 * subnets[0].net.num_parameters  # the largest has them all


def test_the_runtime_switches(subnets, path):
    """With copies of two at a time; what was copied makes way again."""
    model, images = AdaptiveModel.load(path, working_copies=2), torch.randn(2, 3, 32, 32)
    for number in (1, 2, 3, 4, 1, 0, 3, 3):
        model.use(f"subnet_{number}")
        assert torch.equal(model(images), subnets[number].net(images))
        joined = [m for s in model.subnets for m in s.net.modules() if isinstance(m, JoinedWeight)]
        assert joined
    for index, subnet in enumerate(model.subnets):
        for module in subnet.net.modules():
            for own in getattr(module, "parametrizations", {}).values():
                assert (own.original.shape == own[0].shape) is (index in model._views)


def test_subnets_without_a_concatenation_are_of_format_1(subnets, tmp_path):
    save_bundle(tmp_path / "one.safetensors", subnets[:1], {})
    assert description_of(tmp_path / "one.safetensors")["format"] == 1


def test_saved_again_it_is_refused_without_parts(subnets, tmp_path):
    bare = [dataclasses.replace(subnet, parts={}) for subnet in subnets]
    with pytest.raises(ExportError, match="is not a part of the same weight"):
        save_bundle(tmp_path / "bundle.safetensors", bare, {})


@pytest.mark.parametrize(("change", "message"), [
    (lambda parts, name: parts.update({name: []}), "must be increasing ranges"),
    (lambda parts, name: parts.update({name: 3}), "must be increasing ranges"),
    (lambda parts, name: parts[name].append(parts[name][0]), "must be increasing ranges"),
    (lambda parts, name: parts[name][0].__setitem__(0, 2), "must be increasing ranges"),
    (lambda parts, name: parts[name][0].__setitem__(0, True), "must be increasing ranges"),
    (lambda parts, name: parts[name][0][1].reverse(), "must be increasing ranges"),
    (lambda parts, name: parts[name][0][1].pop(), "must be increasing ranges"),
    (lambda parts, name: parts[name][0][1][0].__setitem__(0, -1), "must be increasing ranges"),
    (lambda parts, name: parts[name][0][1][0].__setitem__(1, 0), "must be increasing ranges"),
    (lambda parts, name: parts[name][0][1][1].__setitem__(0, 1), "must be increasing ranges"),
    (lambda parts, name: parts[name][0][1][-1].__setitem__(0, 10**6), "but .* are there"),
    (lambda parts, name: parts.update(nothing=parts[name]), "parts of 'nothing', which is none of its weights"),
], ids=range(12))  # fmt: skip
def test_parts_that_lie(path, change, message):
    description = description_of(path)
    assert description["format"] == 2
    parts = description["subnets"][1]["parts"]
    change(parts, next(name for name, own in parts.items() if own[0][0] == 1 or len(own) == 1))
    rewrite(path, description)
    with pytest.raises(ExportError, match=message):
        load_bundle(path)


def test_parts_of_format_1_are_refused(path):
    description = description_of(path) | {"format": 1}
    rewrite(path, description)
    with pytest.raises(ExportError, match=r"subnet 1: it has .*parts"):
        load_bundle(path)


def test_many_joined_weights_ask_for_much(path):
    description = description_of(path)
    description["subnets"][1]["parts"] |= {f"x{n}": [] for n in range(10_000)}
    rewrite(path, description)
    with pytest.raises(ExportError, match="bytes written out"):
        load_bundle(path)


@pytest.mark.parametrize(("shape", "parts"), [
    ((3, 4, 2, 2), {0: [(1, 2), (5, 1)], 1: [(0, 1), (4, 3)]}), ((5,), {0: [(0, 3), (7, 2)]}), ((3, 4), {1: [(2, 4)]}),
    ((2, 3), {}),
])  # fmt: skip
def test_joined_is_what_numpy_selects(shape, parts):
    common = torch.randn(9, *[8] * (len(shape) - 1))
    rows = [
        np.concatenate([np.arange(s, s + n) for s, n in parts[axis]]) if axis in parts else np.arange(size)
        for axis, size in enumerate(shape)
    ]
    expected = common.numpy()[np.ix_(*rows)]
    assert np.array_equal(JoinedWeight(shape, parts)(common).numpy(), expected)
    assert np.array_equal(common[place(shape, parts)].numpy(), expected)
    assert extent(shape, parts) == tuple(int(own.max()) + 1 for own in rows)
    if all(len(ranges) > 1 for ranges in parts.values()) and parts:
        assert parts_from_json("w", json.loads(json.dumps(parts_to_json(parts))), shape) == parts
