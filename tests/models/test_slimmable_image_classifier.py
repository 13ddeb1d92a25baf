"""The searched input resolution and the connection with the head."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pss_razor.core import ConfigError, Subnet
from pss_razor.models import (
    PrefixChannelContainer,
    PrefixMutableChannel,
    SlicedConv2d,
    SlimmableImageClassifier,
    SubnetMutator,
)
from pss_razor.registry import MODELS

from mmrazor.models.mutables import MutableChannelContainer, OneShotMutableChannelUnit


@contextlib.contextmanager
def backbone_input(algorithm):
    """What arrives at the backbone."""
    seen = []
    handle = algorithm.architecture.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("resolution", [32, 40, 48, 56, 64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_interpolation(small_mbv2, monkeypatch, resolution, channels_last):
    monkeypatch.setattr(small_mbv2, "channels_last", channels_last)
    images = torch.randn(2, 3, 64, 64)
    subnet = Subnet({**small_mbv2.space.largest, "resolution": resolution})
    with backbone_input(small_mbv2) as seen, small_mbv2.mutator.active(subnet), torch.no_grad():
        small_mbv2.eval()(images)
    expected = F.interpolate(images, (resolution, resolution), mode="bilinear", align_corners=True)
    assert seen[0].shape == (2, 3, resolution, resolution)
    torch.testing.assert_close(seen[0], expected)
    # corners aligned: the corner pixels are the corner pixels
    torch.testing.assert_close(seen[0][..., -1, -1], images[..., -1, -1])


def test_a_batch_of_the_wanted_size_is_left_alone(small_mbv2):
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with backbone_input(small_mbv2) as seen, torch.no_grad():
        small_mbv2.eval()(images)
    assert seen[0].data_ptr() == images.data_ptr()


def test_batches_of_other_sizes_become_the_active_resolution(small_mbv2):
    with backbone_input(small_mbv2) as seen, torch.no_grad():
        small_mbv2.eval()(torch.zeros(1, 3, 50, 70))
    assert seen[0].shape == (1, 3, 64, 64)


@pytest.mark.parametrize("classes", [1, 2, 7, 1000])
def test_any_number_of_classes(build_small, classes):
    algorithm = build_small(**{"architecture.head.num_classes": classes}).eval()
    with algorithm.mutator.active(algorithm.space.smallest), torch.no_grad():
        assert algorithm(torch.zeros(2, 3, 64, 64), mode="tensor").shape == (2, classes)
        (first, _) = algorithm(torch.zeros(2, 3, 64, 64), mode="predict")
    assert first.pred_label.score.shape == (classes,)
    assert first.pred_label.score.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("resolutions", [[0], [-32], [32, 40.5], ["32"]])
def test_wrong_resolutions(build_small, resolutions):
    with pytest.raises(ConfigError, match=r"resolutions = .* must be positive whole numbers of pixels"):
        build_small(**{"architecture.resolutions": resolutions})


def test_resolutions_in_any_order(build_small):
    space = build_small(**{"architecture.resolutions": [48, 64, 32]}).space
    assert space.dimensions[space.position("resolution")].values == (32, 48, 64)


@pytest.mark.parametrize("resolutions", [[32, 32, 64], []])
def test_repeated_or_no_resolutions(build_small, resolutions):
    with pytest.raises(ConfigError):
        build_small(**{"architecture.resolutions": resolutions})


def test_without_a_searched_resolution(build_small):
    algorithm = build_small(**{"architecture.resolutions": None}).eval()
    assert "resolution" not in algorithm.space.names and algorithm.space.size == 3168
    with backbone_input(algorithm) as seen, torch.no_grad():
        algorithm(torch.zeros(1, 3, 48, 48))
    assert seen[0].shape == (1, 3, 48, 48)


@MODELS.register_module(name="SearchedOutput", force=True)
class SearchedOutput(nn.Module):
    """A backbone whose output width is searched."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SlicedConv2d(3, 24, 3, stride=2)
        OneShotMutableChannelUnit._register_channel_container(self, PrefixChannelContainer)
        self.last_mutable = PrefixMutableChannel(24, {8: 0.5, 24: 0.5}, alias="width")
        MutableChannelContainer.register_mutable_channel_to_module(self.conv, self.last_mutable, True)

    def forward(self, x):
        return (self.conv(x),)


def searched_output(head):
    config = dict(
        type="SlimmableImageClassifier",
        backbone=dict(type="SearchedOutput"),
        neck=dict(type="mmcls.GlobalAveragePooling"),
        head=dict(type=head, num_classes=5, in_channels=24),
    )
    return MODELS.build(config)


def test_head_follows_the_backbones_output_width():
    classifier = searched_output("SlicedLinearClsHead")
    assert isinstance(classifier, SlimmableImageClassifier)
    classifier.init_weights()
    assert classifier.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.3) and not classifier.head.fc.bias.any()
    mutator = SubnetMutator()
    mutator.prepare_from_supernet(classifier)
    assert mutator.space.names == ("width",)
    images = torch.randn(2, 3, 16, 16)
    for width in (8, 24):
        with mutator.active(Subnet(dict(width=width))):
            logits = classifier(images, mode="tensor")
        features = F.conv2d(images, classifier.backbone.conv.weight[:width], classifier.backbone.conv.bias[:width], 2)
        expected = F.linear(features.mean((2, 3)), classifier.head.fc.weight[:, :width], classifier.head.fc.bias)
        torch.testing.assert_close(logits, expected)


def test_a_head_that_cannot_follow_is_refused():
    with pytest.raises(ConfigError, match="the head LinearClsHead cannot follow; use head=dict"):
        searched_output("mmcls.LinearClsHead")
