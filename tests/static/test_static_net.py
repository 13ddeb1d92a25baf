from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from pss_razor.core import ExportError
from pss_razor.static import StaticNet
from pss_razor.static.static_net import _keeps_shape
from pss_razor.static.whitelist import FUNCTIONS, METHODS, MODULES


def _node(spec, name):
    return next(node for node in spec["nodes"] if node["name"] == name)


def _call(op, target, *args, **kwargs):
    return {"name": "x", "op": op, "target": target, "args": list(args), "kwargs": kwargs}


def _spec(*nodes, result="x", resolution=8):
    first = {"name": "images", "op": "input", "target": "images", "args": [], "kwargs": {}}
    last = {"name": "output", "op": "output", "target": "output", "args": [{"node": result}], "kwargs": {}}
    return {"format": 1, "resolution": resolution, "nodes": [first, *nodes, last]}


IMAGES = {"node": "images"}
_ONE, _TWO = [torch.zeros(2, 3)], [torch.zeros(2, 3)] * 2
_ELEMENTWISE = [
    f"{op} {name}"
    for op, functions in (("function", FUNCTIONS), ("method", METHODS))
    for name, function in functions.items()
    if _keeps_shape(function, _ONE) or _keeps_shape(function, _TWO)
]


def test_resizes_like_training(small_model, small_net):
    images = torch.randn(2, 3, 20, 12)
    resized = F.interpolate(images, size=(16, 16), mode="bilinear", align_corners=True)
    torch.testing.assert_close(small_net(images), small_model(resized), rtol=0, atol=1e-6)


def test_properties(small_model, small_net):
    assert small_net.resolution == 16
    assert small_net.num_parameters == sum(p.numel() for p in small_model.parameters())
    assert json.loads(json.dumps(small_net.spec)) == small_net.spec
    assert not small_net.training and not any(p.requires_grad for p in small_net.parameters())


def test_state_dict_has_the_names_of_the_source(small_model, small_net):
    assert {name.removeprefix("layers.") for name in small_net.state_dict()} == set(small_model.state_dict())


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 1, 16, 16), (2, 3, 16), (2, 4, 16, 16)])
def test_wrong_images(small_net, shape):
    with pytest.raises(ExportError, match=r"shape .*\(N, 3, H, W\)"):
        small_net(torch.zeros(shape))


def test_images_of_integers(small_net):
    with pytest.raises(ExportError, match="uint8"):
        small_net(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_does_not_change_the_images(small_net):
    images = torch.randn(2, 3, 16, 16)
    before = images.clone()
    small_net(images)
    assert torch.equal(images, before)


def test_values_are_freed_after_their_last_use(small_net):
    program = small_net._program
    freed = [slot for step in program.steps for slot in step.dead]
    assert len(freed) == len(set(freed)) and program.result not in freed
    assert all(program.values[slot] is None for slot in freed)  # never a constant
    assert 0 in program.steps[0].dead  # the images


def test_deepcopy_is_independent(small_net):
    images = torch.randn(1, 3, 16, 16)
    before = small_net(images)
    other = copy.deepcopy(small_net)
    for parameter in other.parameters():
        parameter.zero_()
    assert torch.equal(other(images), torch.zeros(1, 5))
    assert torch.equal(small_net(images), before)


def test_arguments_of_all_forms():
    size = {"name": "size", "op": "method", "target": "size", "args": [IMAGES, 0], "kwargs": {}}
    rows = {"tuple": [{"slice": [None, None, None]}, {"slice": [0, 2, None]}]}
    cut = {"name": "cut", "op": "function", "target": "operator.getitem", "args": [IMAGES, rows], "kwargs": {}}
    cat = {
        "name": "cat",
        "op": "function",
        "target": "torch.cat",
        "args": [[IMAGES, {"node": "cut"}]],
        "kwargs": {"dim": 1},
    }
    view = _call("method", "view", {"node": "cat"}, {"tuple": [{"node": "size"}, -1]})
    net = StaticNet.from_tensors(_spec(size, cut, cat, view), {})
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(net(images), torch.cat([images, images[:, 0:2]], dim=1).view(3, -1))


def test_whitelist_holds_nothing_that_reaches_out():
    for name in (*FUNCTIONS, *METHODS, *MODULES):
        assert not {"getattr", "eval", "exec", "import", "load", "save", "apply", "map_", "numpy"} & set(
            name.split(".")
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.update(format=2), "format 2 is unknown"),
        (lambda spec: spec.update(format=True), "format True is unknown"),
        (lambda spec: spec.pop("resolution"), "instead of format, resolution and nodes"),
        (lambda spec: spec.update(resolution=0), "resolution is 0"),
        (lambda spec: spec.update(resolution=10**9), "resolution is 1000000000"),
        (lambda spec: spec.update(resolution=16.0), r"resolution is 16\.0"),
        (lambda spec: spec.update(nodes={}), "nodes must be a list"),
        (lambda spec: spec["nodes"].insert(1, "conv"), "node 1 has 'conv'"),
        (lambda spec: spec["nodes"][1].pop("kwargs"), "node 1 has"),
        (lambda spec: spec["nodes"][1].update(extra=1), "node 1 has"),
        (lambda spec: spec["nodes"][1].update(name=5), "bad name: 5"),
        (lambda spec: spec["nodes"].pop(0), "out of place"),
        (lambda spec: spec["nodes"].pop(), "out of place"),
        (lambda spec: spec["nodes"].insert(1, dict(spec["nodes"][0], name="second")), "out of place"),
        (lambda spec: spec["nodes"].insert(1, spec["nodes"][1]), "name that another node has"),
        (lambda spec: spec["nodes"].insert(1, spec["nodes"].pop(2)), "not before it: 'stem'"),
        (lambda spec: _node(spec, "output").update(args=[1]), "exactly one value"),
        (lambda spec: _node(spec, "add").update(op="call"), "not whitelisted"),
        (lambda spec: _node(spec, "add").update(target="os.system"), "function that is not whitelisted: 'os.system'"),
        (lambda spec: _node(spec, "add").update(target="operator.attrgetter"), "not whitelisted"),
        (lambda spec: _node(spec, "view").update(target="__reduce__"), "method that is not whitelisted"),
        (lambda spec: _node(spec, "view").update(args=[{"node": "pool"}, {"code": 1}]), "argument of unknown form"),
        (lambda spec: _node(spec, "stem").update(type="LSTM"), "module type that is not whitelisted: 'LSTM'"),
        (lambda spec: _node(spec, "stem").update(target="forward"), "torch does not allow: 'forward'"),
        (lambda spec: _node(spec, "stem").update(target=""), "torch does not allow"),
        (lambda spec: _node(spec, "stem").update(target="block"), "describes|taken"),
        (lambda spec: _node(spec, "fc").update(target="stem.fc"), "name that is taken"),
        (lambda spec: _node(spec, "block_act_1")["config"].update(inplace=False), "differently than an earlier node"),
        (lambda spec: _node(spec, "stem")["config"].pop("bias"), "settings of Conv2d"),
        (lambda spec: _node(spec, "stem")["config"].update(device="cuda"), "settings of Conv2d"),
        (lambda spec: _node(spec, "stem")["config"].update(padding_mode="cuda"), "bad value for padding_mode"),
        (lambda spec: _node(spec, "stem")["config"].update(out_channels=10**12), "bad value for out_channels"),
        (lambda spec: _node(spec, "stem")["config"].update(groups=7), "cannot build Conv2d"),
        (lambda spec: _node(spec, "stem")["config"].update(groups=0), "cannot build Conv2d"),
        (lambda spec: _node(spec, "stem")["config"].update(stride="same"), "cannot build|cannot run"),
    ],
)
def test_bad_descriptions(small_net, change, message):
    spec = copy.deepcopy(small_net.spec)
    change(spec)
    with pytest.raises(ExportError, match=message):
        StaticNet.from_tensors(spec, small_net.state_dict())


def test_nested_too_deeply():
    argument = 1
    for _ in range(20):
        argument = [argument]
    with pytest.raises(ExportError, match="nested too deeply"):
        StaticNet(_spec(_call("function", "torch.add", IMAGES, argument)))
    for _ in range(100_000):
        argument = [argument]
    with pytest.raises(ExportError, match="not JSON"):
        StaticNet(_spec(_call("function", "torch.add", IMAGES, argument)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_values_that_json_lacks(value):
    with pytest.raises(ExportError, match="not JSON"):
        StaticNet(_spec(_call("function", "torch.add", IMAGES, value)))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (_call("function", "torch.nn.functional.interpolate", IMAGES, size=[10**6, 10**6]), "absurd|cannot run"),
        (_call("method", "expand", IMAGES, 2, 10**9, 3, 8, 8), "absurd size|cannot run"),
        (_call("function", "torch.nn.functional.pad", IMAGES, {"tuple": [0, 10**9]}), "absurd size"),
        (_call("function", "operator.mul", [1], 10**12), "repeats a sequence"),
        (_call("function", "operator.mul", "ab", 10**12), "repeats a sequence"),
        (_call("function", "operator.mul", 2**60, 2**60), "absurd size"),
        (_call("function", "operator.add", 10**400, 1), "absurd size"),
        (_call("method", "view", IMAGES, 7), "cannot run"),
        (_call("method", "view", "text", 7), "cannot run"),
        (_call("method", "flatten", IMAGES, 2), "two images has shape"),
        (_call("method", "view", IMAGES, 1, -1), "two images has shape"),
        (_call("method", "size", IMAGES, 0), "two images has type int"),
    ],
)
def test_what_cannot_run_is_refused_without_memory(node, message):
    with pytest.raises(ExportError, match=message):
        StaticNet.from_tensors(_spec(node), {})


def test_lists_in_lists():
    """Each list is short, all that is in them is not: looking at it took forever."""

    def node(name, source):
        items = [{"node": source}] * 100
        return {"name": name, "op": "function", "target": "operator.add", "args": [items, []], "kwargs": {}}

    first = {"name": "size", "op": "method", "target": "size", "args": [IMAGES], "kwargs": {}}
    with pytest.raises(ExportError, match="absurd size"):
        StaticNet.from_tensors(_spec(first, node("a", "size"), node("b", "a"), node("c", "b"), node("x", "c")), {})


def test_what_torch_would_take_long_for():
    """Without memory: 18 ms an interpolation, and 10 ms a floor division of a tensor, for 100 bytes each."""
    resize = "torch.nn.functional.interpolate"
    chain = [
        {**_call("function", resize, {"node": f"n{i - 1}" if i else "images"}, 8), "name": f"n{i}"} for i in range(65)
    ]
    flat = _call("method", "flatten", {"node": "n63"}, 1)
    StaticNet.from_tensors(_spec(*chain[:64], flat), {})
    with pytest.raises(ExportError, match="more than 64 interpolations"):
        StaticNet.from_tensors(_spec(*chain, flat), {})
    with pytest.raises(ExportError, match="divides a tensor to whole numbers"):
        StaticNet.from_tensors(_spec(_call("function", "operator.floordiv", IMAGES, 2)), {})


@pytest.mark.parametrize("target", sorted(_ELEMENTWISE))
def test_shapes_that_are_known_without_running(target):
    """Each operation that is taken to keep the shape does so."""
    op, _, name = target.partition(" ")
    function = FUNCTIONS[name] if op == "function" else METHODS[name]
    count = 2 if _keeps_shape(function, [torch.zeros(2, 3)] * 2) else 1
    operands = [torch.rand(2, 3, 8, 8) + 0.1 for _ in range(count)]
    result = function(*operands)
    assert result.shape == operands[0].shape and result.dtype == torch.float32


@pytest.mark.parametrize("dimensions", [17, 200])
def test_tensors_of_many_dimensions(dimensions):
    with pytest.raises(ExportError, match=r"absurd size|cannot run"):
        StaticNet.from_tensors(_spec(_call("method", "view", IMAGES, *[1] * dimensions, -1)), {})
