"""The backbone against mmcls' MobileNetV2 and the design's initialisation."""

import math

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.models import SlicedBatchNorm2d, SlicedConv2d, SlimmableMobileNetV2, SubnetMutator
from pss_razor.registry import MODELS

from mmcls.models.backbones import MobileNetV2


def with_mutator(**kwargs):
    backbone = MODELS.build(dict(type="SlimmableMobileNetV2", **kwargs))
    mutator = SubnetMutator()
    mutator.prepare_from_supernet(backbone)
    return backbone, mutator


def test_feature_maps_of_out_indices_have_the_active_widths(random_subnet):
    backbone, mutator = with_mutator(out_indices=range(8))
    backbone.eval()
    for subnet in (mutator.space.largest, mutator.space.smallest, random_subnet(mutator.space)):
        with mutator.active(subnet), torch.no_grad():
            outs = backbone(torch.zeros(2, 3, 64, 64))
        sides = (32, 16, 8, 4, 4, 2, 2, 2)
        widths = [*(subnet[f"stage{stage}"] for stage in range(1, 8)), 1280]
        assert [tuple(out.shape) for out in outs] == [(2, w, s, s) for w, s in zip(widths, sides, strict=True)]


def test_some_out_indices():
    backbone, mutator = with_mutator(out_indices=(2, 4))
    mutator.activate(mutator.space.smallest)
    assert [out.shape[1] for out in backbone(torch.zeros(2, 3, 64, 64))] == [24, 72]
    with pytest.raises(ValueError, match="out_indices"):
        MODELS.build(dict(type="SlimmableMobileNetV2", out_indices=(8,)))


@pytest.mark.parametrize("widen_factor", [1.0, 1.5])
def test_mmcls_state_dict_loads_and_computes_the_same(widen_factor):
    torch.manual_seed(0)
    original = MobileNetV2(widen_factor=widen_factor, out_indices=range(8))
    original.eval()
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    backbone, _ = with_mutator(widen_factor=widen_factor, out_indices=range(8))
    backbone.eval()
    assert list(backbone.state_dict()) == list(original.state_dict())
    assert [n for n, _ in backbone.named_parameters()] == [n for n, _ in original.named_parameters()]
    backbone.load_state_dict(original.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(backbone(images), original(images), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_subnet_uses_the_first_channels_of_every_tensor(random_subnet):
    """What comes after the active channels has no influence, and gets no gradient."""
    backbone, mutator = with_mutator()
    subnet = mutator.space.smallest
    mutator.activate(subnet)
    backbone.eval()
    (before,) = backbone(torch.ones(1, 3, 32, 32))
    before.sum().backward()
    conv = backbone.layer7[0].conv[2].conv  # 6 x 160 -> 320
    assert (
        conv.weight.grad[:240, :720].any() and not conv.weight.grad[240:].any() and not conv.weight.grad[:, 720:].any()
    )
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.grad is not None and parameter is conv.weight:
                parameter[240:] = parameter[:, 720:] = float("nan")
        assert torch.equal(backbone(torch.ones(1, 3, 32, 32))[0], before)


def test_initialisation(imagenet_mbv2):
    """std = sqrt(2 / (k² · cout)) for convs, depthwise ones too; 0.01 for the linear layer."""
    architecture = imagenet_mbv2.architecture
    convs = [module for module in architecture.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 52 and all(isinstance(conv, SlicedConv2d) for conv in convs)
    for conv in convs:
        count = conv.weight.numel()
        expected = math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels))
        # five standard errors of a sample deviation
        assert conv.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * count))
        assert conv.weight.mean().abs().item() < 5 * expected / math.sqrt(count)
        assert conv.weight.abs().max() > 2.4 * expected, "uniform instead of normal"
    norms = [module for module in architecture.modules() if isinstance(module, _BatchNorm)]
    assert len(norms) == 52 and all(isinstance(norm, SlicedBatchNorm2d) for norm in norms)
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)
    fc = architecture.head.fc
    assert fc.weight.std().item() == pytest.approx(0.01, rel=0.01) and not fc.bias.any()
    assert fc.weight.abs().max() > 0.03


def test_width_range():
    _, mutator = with_mutator(width_range=(0.25, 1.0))
    values = {d.name: d.values for d in mutator.space.dimensions}
    assert values["stem"] == (8, 16, 24, 32) and values["stage7"] == tuple(range(80, 321, 8))
    _, mutator = with_mutator(width_range=(1.0, 1.0))
    assert mutator.space.size == 1
    with pytest.raises(ValueError, match="largest width"):
        with_mutator(width_range=(0.5, 0.75))


def test_options_of_mmcls():
    backbone, _ = with_mutator(frozen_stages=2, norm_eval=True)
    backbone.train()
    assert not any(p.requires_grad for p in [*backbone.conv1.parameters(), *backbone.layer2.parameters()])
    assert all(p.requires_grad for p in backbone.layer3.parameters())
    assert not any(m.training for m in backbone.modules() if isinstance(m, SlicedBatchNorm2d))
    assert isinstance(backbone, SlimmableMobileNetV2) and isinstance(backbone, MobileNetV2)


def test_checkpointed_blocks_have_the_same_gradients():
    """``with_cp``: blocks are run again in the backward pass, while the same subnet is active."""
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone, mutator = with_mutator(with_cp=with_cp)
        backbone.init_weights()
        mutator.activate(mutator.space.smallest)
        backbone.train()
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
        backbone(images)[0].square().mean().backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
