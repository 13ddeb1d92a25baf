"""The six released architectures and the supernet: figures of the method's description."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pss_razor import plugin  # noqa: F401 - registers what the fixtures build
from pss_razor.core import ConfigError
from pss_razor.registry import MODELS, TASK_UTILS

from mmengine.registry import init_default_scope

# model -> parameters in millions, MACs of conv and linear layers in millions, what its name counts in millions
PUBLISHED = {
    14: (2.6731, 13.19, 13.85),
    43: (4.3986, 40.66, 42.41),
    114: (4.4101, 109.62, 114.49),
    287: (6.0444, 276.26, 287.20),
    481: (7.7134, 460.40, 481.60),
    604: (9.6956, 578.70, 604.34),
}


def build(num_classes=1000, **backbone):
    init_default_scope("mmrazor")
    return MODELS.build(
        dict(
            type="mmcls.ImageClassifier",
            backbone=dict(type="CreamMobileNet", **backbone),
            neck=dict(type="mmcls.GlobalAveragePooling"),
            head=dict(
                type="mmcls.StackedLinearClsHead",
                num_classes=num_classes,
                in_channels=320,
                mid_channels=[1280],
                act_cfg=dict(type="SiLU"),
            ),
        )
    ).eval()


@pytest.fixture(scope="module", params=list(PUBLISHED))
def released(request):
    return request.param, build(model_selection=request.param)


def parameters(model):
    return sum(p.numel() for p in model.parameters()) * 1e-6


def test_parameters(released):
    name, model = released
    assert parameters(model) == pytest.approx(PUBLISHED[name][0], abs=5e-5)


def test_macs(released):
    name, model = released
    size = model.backbone.input_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    assert counter.get_total_flops() / 2e6 == pytest.approx(PUBLISHED[name][1], abs=5e-3)


def test_the_count_behind_the_name(released):
    name, model = released
    size = model.backbone.input_size
    estimator = TASK_UTILS.build(dict(type="mmrazor.ResourceEstimator"))
    counted = estimator.estimate(model, dict(input_shape=(1, 3, size, size), units=dict(flops="M", params="M")))
    assert counted["flops"] == pytest.approx(PUBLISHED[name][2], abs=0.02)


def test_supernet():
    assert parameters(build(depths=(4, 4, 4, 4, 4))) == pytest.approx(28.842, abs=5e-4)


def test_depth_and_size_of_a_flops_range():
    backbone = build(flops_range=(0, 43)).backbone
    assert (backbone.depths, backbone.input_size) == ((1, 1, 1, 1, 1), 160)


def test_any_architecture():
    arch = [[0], [3], [3, 5], [0], [1, 2, 3, 4, 5], [3], [0]]
    model = build(arch=arch, input_size=64)
    assert model.backbone.arch == arch
    chosen = model.backbone.layer5[2]
    assert chosen.choices == ["k5e6"] and model.backbone.input_size == 64
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)


def test_an_architecture_is_the_supernet_with_that_path():
    supernet, arch = (
        build(depths=(1, 2, 1, 1, 1), input_size=64, num_classes=10),
        [[0], [4], [0, 3], [2], [5], [1], [0]],
    )
    static = build(arch=arch, input_size=64, num_classes=10)
    static.load_state_dict({k: v for k, v in supernet.state_dict().items() if k in static.state_dict()})
    ops = ["k3e4", "k3e6", "k5e4", "k5e6", "k7e4", "k7e6"]
    for blocks, stage in zip(supernet.backbone.blocks[1:], arch[1:], strict=False):
        for block, op in zip(blocks, stage, strict=True):
            block.current_choice = ops[op]
    supernet.backbone.layer1[0].current_choice = "k3e1"
    assert supernet.backbone.arch == arch
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(static(images), supernet(images))


def test_images_of_another_size_are_resized():
    model = build(model_selection=14)
    images = torch.rand(1, 3, 64, 64)
    larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    seen = []
    model.backbone.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images), model(larger)
    assert torch.equal(seen[0], images)
    assert seen[1].shape == images.shape and (seen[1] - images).abs().mean() < 0.15


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "nothing is given"),
        ({"flops_range": (0, 300), "model_selection": 14}, "exactly one of"),
        ({"model_selection": 14, "input_size": 224}, "it follows from model_selection"),
        ({"depths": (1, 1, 1, 1)}, "five numbers"),
        ({"depths": (1, 1, 1, 1, 0)}, "five numbers"),
        ({"depths": (1, 1, 1, 1, 1), "input_size": 16}, "at least 32"),
        ({"model_selection": 15}, "choose from"),
        ({"flops_range": (600, 700)}, "cannot be met"),
        ({"arch": [[0], [9], [3], [3], [3], [3], [0]]}, "has the op 9"),
    ],
)
def test_wrong_arguments(arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        MODELS.build(dict(type="CreamMobileNet", **arguments))
