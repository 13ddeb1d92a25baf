from __future__ import annotations

import copy
import json
import warnings

import pytest
import torch
import torchvision
from torch import nn

from pss_razor.core import ExportError
from pss_razor.static import StaticNet, trace_static
from pss_razor.static.static_parameter import StaticParameter


def _randomize_statistics(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def _assert_exact(model, net, resolution):
    images = torch.randn(2, 3, resolution, resolution)
    with torch.no_grad():
        torch.testing.assert_close(net(images), model(images), rtol=0, atol=1e-6)


def _head(module, channels=4):
    return nn.Sequential(module, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small"])
def test_torchvision_models(name):
    torch.manual_seed(0)
    model = _randomize_statistics(getattr(torchvision.models, name)(num_classes=7))
    net = trace_static(model, 32)
    _assert_exact(model, net, 32)
    assert net.num_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_mmcls_classifier():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcls.models import ImageClassifier

    torch.manual_seed(0)
    model = ImageClassifier(
        backbone={"type": "mmcls.MobileNetV2", "widen_factor": 0.5},
        neck={"type": "mmcls.GlobalAveragePooling"},
        head={
            "type": "mmcls.LinearClsHead",
            "num_classes": 7,
            "in_channels": 1280,
            "loss": {"type": "mmcls.CrossEntropyLoss"},
        },
    )
    net = trace_static(_randomize_statistics(model), 32)
    _assert_exact(model, net, 32)
    assert {name.removeprefix("layers.") for name in net.state_dict()} == set(model.state_dict())


def test_small_model(small_model, small_net):
    _assert_exact(small_model, small_net, 16)


def test_leaves_the_model_as_it_is(small_model):
    small_model.train()
    before = copy.deepcopy(small_model.state_dict())
    modules = dict(small_model.named_modules())
    trace_static(small_model, 16)
    assert small_model.training and dict(small_model.named_modules()) == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in small_model.state_dict().items())


def test_same_model_gives_same_description(small_model):
    assert trace_static(small_model, 16).spec == trace_static(small_model, 16).spec


def test_tensors_own_only_their_storage():
    class Sliced(nn.Conv2d):
        def to_static_op(self):
            conv = nn.Conv2d(3, 4, 3, bias=False)
            conv.weight = nn.Parameter(self.weight[:4])
            return conv

    model = _head(Sliced(3, 64, 3).to(memory_format=torch.channels_last))
    net = trace_static(model, 16)
    for tensor in net.state_dict().values():
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    assert torch.equal(net.state_dict()["layers.0.weight"], model[0].weight[:4])
    assert type(model[0]) is Sliced


def test_static_ops_are_made_at_every_depth_and_once():
    made = []

    class Dynamic(nn.ReLU):
        def to_static_op(self):
            made.append(self)
            return nn.ReLU()

    class DynamicSequential(nn.Sequential):
        def to_static_op(self):
            return nn.Sequential(*list(self)[:2])

    shared = Dynamic()
    body = DynamicSequential(nn.Sequential(nn.Conv2d(3, 4, 3), shared), shared, nn.Conv2d(4, 4, 1))
    net = trace_static(_head(body), 8)
    assert len(made) == 1
    assert [node["type"] for node in net.spec["nodes"][1:4]] == ["Conv2d", "ReLU", "ReLU"]
    assert [node["target"] for node in net.spec["nodes"][2:4]] == ["0.0.1", "0.0.1"]


def test_the_model_itself_may_be_dynamic(small_model):
    class Outer(nn.Module):
        def to_static_op(self):
            return small_model

    _assert_exact(small_model, trace_static(Outer(), 16), 16)


def test_dead_nodes_are_removed_but_not_those_that_work_in_place():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Conv2d(3, 3, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            x = x + 1
            self.unused(x).mean()
            self.relu(x)
            return torch.flatten(x, 1)

    model = Net().eval()
    net = trace_static(model, 4)
    assert [node["name"] for node in net.spec["nodes"]] == ["images", "add", "relu", "flatten", "output"]
    assert not net.state_dict()
    _assert_exact(model, net, 4)


def test_shape_attribute_and_functions():
    class Net(nn.Module):
        def forward(self, x):
            x = nn.functional.max_pool2d(nn.functional.relu6(x * 2), 2)
            x = nn.functional.interpolate(x, size=(6, 6), mode="nearest")
            return x[:, :2].mean((2, 3)).reshape(x.shape[0], -1)

    _assert_exact(Net(), trace_static(Net(), 8), 8)


def test_classes_that_compute_the_same():
    class Plain(nn.Conv2d):
        def __init__(self):
            super().__init__(3, 4, 3)

    net = trace_static(nn.Sequential(Plain(), nn.SyncBatchNorm(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8)
    assert [node.get("type") for node in net.spec["nodes"][1:3]] == ["Conv2d", "BatchNorm2d"]


def test_mmcv_modules():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcv.cnn import ConvModule, Linear

    body = ConvModule(3, 4, 3, conv_cfg={"type": "Conv"}, norm_cfg={"type": "BN"}, act_cfg={"type": "Swish"})
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(4, 2)).eval()
    _assert_exact(model, trace_static(model, 8), 8)


class OwnForward(nn.Conv2d):
    def forward(self, input):
        return super().forward(input) + 1


class OwnParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


class ValueDependent(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Counting(nn.Module):
    def forward(self, x):
        return x * int(x.mean())


class Sorting(nn.Module):
    def forward(self, x):
        return torch.sort(x)[0]


class TakesDtype(nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True, dtype=torch.float64)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (OwnForward(3, 4, 1), r"module 0 of type .*OwnForward cannot be exported; use one of Conv2d"),
        (nn.InstanceNorm2d(3), r"module 0 of type torch\.nn\.modules\.instancenorm\.InstanceNorm2d cannot be exported"),
        (OwnParameter(), r"module 0 of type .*OwnParameter uses the tensor 0\.scale directly"),
        (ValueDependent(), r"module 0 of type .*ValueDependent cannot be traced"),
        (Counting(), r"module 0 of type .*Counting cannot be traced"),
        (Sorting(), r"module 0 of type .*Sorting calls .*sort.*, which cannot be exported"),
        (TakesDtype(), r"module 0 of type .*TakesDtype passes torch\.float64 of type torch\.dtype"),
        (nn.Sequential(OwnForward(3, 4, 1)), r"module 0\.0 of type .*OwnForward"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), "module 0 of type .*Conv2d cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_named(module, message):
    with pytest.raises(ExportError, match=message):
        trace_static(_head(module), 8)


def test_hooks_are_refused():
    conv = nn.Conv2d(3, 4, 1)
    conv.register_forward_hook(lambda module, args, output: output + 1)
    with pytest.raises(ExportError, match=r"module 0 .*Conv2d has hooks"):
        trace_static(_head(conv), 8)


def test_logits_are_wanted(small_model):
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ExportError, match="returns tuple"):
        trace_static(Pair(), 8)
    with pytest.raises(ExportError, match="the output for two images has shape"):
        trace_static(nn.Conv2d(3, 4, 1), 8)


def test_channels_that_do_not_fit():
    with pytest.raises(ExportError, match="node '_0_1' cannot run"):
        trace_static(_head(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(5, 4, 1))), 8)


def test_weights_that_are_not_finite(small_model):
    small_model.fc.bias.data[0] = float("nan")
    with pytest.raises(ExportError, match=r"'layers\.fc\.bias' has NaN"):
        trace_static(small_model, 16)


class Scaled(nn.Module):
    """What ConvNeXt has besides convs."""

    def __init__(self):
        super().__init__()
        self.conv, self.group_norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.norm, self.gelu, self.scale = nn.LayerNorm(8), nn.GELU("tanh"), StaticParameter((8, 1, 1))
        self.fixed, self.fc = StaticParameter((8,), is_learned=False), nn.Linear(8, 4)

    def forward(self, images):
        x = self.group_norm(self.conv(images))
        x = self.gelu(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.fc((self.scale() * x).mean((2, 3)) + self.fixed())


def test_norms_and_parameters_without_a_layer():
    torch.manual_seed(0)
    model = Scaled().eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.copy_(torch.randn(tensor.shape))
    net = trace_static(model, 8)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(images), model(images))
    assert net.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    twin = StaticNet.from_tensors(json.loads(json.dumps(net.spec)), net.state_dict())
    assert torch.equal(twin(images), net(images))


@pytest.mark.parametrize("shape", [[2**19, 2**19], [-1], [8, 1], "8", [1.5]])
def test_a_parameter_of_another_shape_is_refused(shape):
    spec = json.loads(json.dumps((net := trace_static(Scaled().eval(), 8)).spec))
    node = next(node for node in spec["nodes"] if node.get("type") == "StaticParameter")
    node["config"]["shape"] = shape
    with pytest.raises(ExportError):
        StaticNet.from_tensors(spec, net.state_dict())
