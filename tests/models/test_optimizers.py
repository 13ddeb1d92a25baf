"""The optimizer that the shipped schedule builds for a supernet, and mixed precision on the CPU.

Here and not in tests/engine because both are about the supernet's parameters and forward pass.
"""

import copy
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pss_razor.engine import CPUAmpOptimWrapper, MergedGroupsConstructor
from pss_razor.registry import OPTIM_WRAPPER_CONSTRUCTORS

from mmengine.optim import build_optim_wrapper

NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, dwconv_decay_mult=0.0)


def options_by_name(model, optim_wrapper):
    """Parameter name -> everything its group says."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    result = {}
    for group in optim_wrapper.optimizer.param_groups:
        options = {key: value for key, value in group.items() if key != "params"}
        for parameter in group["params"]:
            assert names[id(parameter)] not in result
            result[names[id(parameter)]] = options
    return result


class TestMergedGroups:
    def test_two_groups_of_the_shipped_schedule(self, imagenet_mbv2, build_optimizer):
        groups = build_optimizer(imagenet_mbv2).optimizer.param_groups
        assert sorted(group["weight_decay"] for group in groups) == [0.0, 1e-4]
        assert {(g["lr"], g["momentum"], g["nesterov"]) for g in groups} == {(0.3, 0.9, True)}
        (decayed,) = (group["params"] for group in groups if group["weight_decay"])
        expected = {
            f"{name}.weight"
            for name, module in imagenet_mbv2.named_modules()
            if (isinstance(module, nn.Conv2d) and module.groups == 1) or isinstance(module, nn.Linear)
        }
        assert len(expected) == 35 + 1
        names = {id(parameter): name for name, parameter in imagenet_mbv2.named_parameters()}
        assert {names[id(parameter)] for parameter in decayed} == expected
        assert sum(len(group["params"]) for group in groups) == 158

    @pytest.mark.parametrize(
        "paramwise_cfg",
        [
            NO_DECAY,
            {},
            dict(bias_lr_mult=2.0, norm_decay_mult=0.5),
            dict(custom_keys={"head.fc": dict(lr_mult=10.0, decay_mult=0.1), "layer1": dict(lr_mult=0.0)}),
            dict(custom_keys={"conv1": dict(momentum=0.5)}, **NO_DECAY),
        ],
    )
    def test_same_options_as_mmengines(self, imagenet_mbv2, paramwise_cfg):
        config = dict(optimizer=dict(type="SGD", lr=0.3, momentum=0.9, weight_decay=1e-4), paramwise_cfg=paramwise_cfg)
        merged = build_optim_wrapper(imagenet_mbv2, {**config, "constructor": "MergedGroupsConstructor"})
        original = build_optim_wrapper(imagenet_mbv2, config)
        expected = options_by_name(imagenet_mbv2, original)
        assert options_by_name(imagenet_mbv2, merged) == expected
        assert len(expected) == 158
        distinct = {tuple(sorted(options.items())) for options in expected.values()}
        assert len(merged.optimizer.param_groups) == len(distinct)

    @pytest.mark.parametrize(
        ("optimizer", "paramwise_cfg"),
        [
            (dict(type="SGD", lr=0.1), dict(custom_keys={"0.bias": dict(momentum=0.5)})),
            (dict(type="SGD", lr=0.1, weight_decay=0.0), NO_DECAY),
            (dict(type="AdamW"), dict(bypass_duplicate=True)),
        ],
    )
    def test_the_optimizers_own_defaults_stay(self, optimizer, paramwise_cfg):
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        config = dict(optimizer=optimizer, paramwise_cfg=paramwise_cfg)
        merged = build_optim_wrapper(model, {**config, "constructor": "MergedGroupsConstructor"})
        expected = options_by_name(model, build_optim_wrapper(model, config))
        assert options_by_name(model, merged) == expected
        model(torch.ones(2, 3, 2, 2)).sum().backward()
        merged.step()

    def test_frozen_parameters_are_left_out(self):
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        model[0].weight.requires_grad = False
        config = dict(
            constructor="MergedGroupsConstructor",
            optimizer=dict(type="SGD", lr=0.1, weight_decay=1e-4),
            paramwise_cfg=NO_DECAY,
        )
        assert set(options_by_name(model, build_optim_wrapper(model, config))) == {"0.bias", "1.weight", "1.bias"}

    def test_registered(self):
        assert OPTIM_WRAPPER_CONSTRUCTORS.get("MergedGroupsConstructor") is MergedGroupsConstructor


class TestAmpWithFusedSGD:
    """``--amp`` on a GPU, rehearsed on the CPU: mmengine's wrapper with a scaler of the CPU."""

    def build(self, model):
        optimizer = dict(type="SGD", lr=0.3, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True)
        config = dict(
            type="AmpOptimWrapper",
            constructor="MergedGroupsConstructor",
            optimizer=optimizer,
            paramwise_cfg=NO_DECAY,
            loss_scale=dict(init_scale=1024.0),
        )
        with mock.patch("mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available", lambda: True):
            optim_wrapper = build_optim_wrapper(model, config)
        optim_wrapper.loss_scaler = torch.amp.GradScaler("cpu", **config["loss_scale"])
        return optim_wrapper

    def test_a_first_step_that_overflows_is_no_step(self, load_config):
        assert load_config("pss_mbv2_flops").optim_wrapper.optimizer.fused
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        reference = copy.deepcopy(model)
        images = torch.randn(5, 8, 3, 2, 2)
        optim_wrapper = self.build(model)
        empty_like = torch.empty_like
        skipped = []
        # What was in the memory before.
        with mock.patch.object(torch, "empty_like", lambda tensor: empty_like(tensor).fill_(1e3)):
            for step, batch in enumerate(images):
                before = copy.deepcopy(dict(model.named_parameters()))
                overflow = float("inf") if step < 2 else 1.0
                optim_wrapper.backward(model(batch).square().mean() * overflow)
                optim_wrapper.step()
                optim_wrapper.zero_grad()
                if all(torch.equal(p, before[name]) for name, p in model.named_parameters()):
                    skipped.append(step)
        assert skipped == [0, 1]

        # Plain SGD, written down, on the batches of the steps that were taken.
        momenta = {}
        for batch in images[2:]:
            reference.zero_grad()
            reference(batch).square().mean().backward()
            with torch.no_grad():
                for name, parameter in reference.named_parameters():
                    decay = 1e-4 if name in ("0.weight", "3.weight") else 0.0
                    gradient = parameter.grad + decay * parameter
                    momenta[name] = 0.9 * momenta[name] + gradient if name in momenta else gradient.clone()
                    parameter -= 0.3 * (gradient + 0.9 * momenta[name])
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, reference.get_parameter(name), rtol=1e-4, atol=1e-6)


class TestCPUAmp:
    def test_one_training_step(self, build_small, build_optimizer, make_batch):
        outputs, dtypes = {}, {}
        for name in ("OptimWrapper", "CPUAmpOptimWrapper"):
            algorithm = build_small()
            algorithm.train()
            algorithm.sampled_subnet = algorithm.space.smallest
            optimizer = build_optimizer(algorithm, type=name)
            algorithm.architecture.backbone.layer3.register_forward_hook(
                lambda m, i, o, name=name: dtypes.update({name: o.dtype})
            )
            before = algorithm.architecture.head.fc.weight.detach().clone()
            outputs[name] = algorithm.train_step(make_batch(), optimizer)
            assert not torch.equal(algorithm.architecture.head.fc.weight, before)
            assert {p.dtype for p in algorithm.parameters()} == {torch.float32}
            assert all(value.dtype == torch.float32 for value in outputs[name].values())
        assert isinstance(optimizer, CPUAmpOptimWrapper)
        assert dtypes == dict(OptimWrapper=torch.float32, CPUAmpOptimWrapper=torch.bfloat16)
        for key in ("largest_ce", "score"):
            assert outputs["CPUAmpOptimWrapper"][key].item() == pytest.approx(
                outputs["OptimWrapper"][key].item(), abs=0.1
            )

    def test_logits_are_close_and_not_equal(self, small_mbv2, random_subnet, calibrate):
        """bfloat16 has 8 bits: 52 random layers add up its rounding, the direction of the logits stays."""
        wrapper = CPUAmpOptimWrapper(torch.optim.SGD(small_mbv2.parameters(), lr=0.1))
        images = torch.randn(8, 3, 64, 64)
        calibrate(small_mbv2, images)
        for subnet in (small_mbv2.space.largest, random_subnet(small_mbv2.space)):
            with small_mbv2.mutator.active(subnet), torch.no_grad():
                exact = small_mbv2(images)
                with wrapper.optim_context(small_mbv2):
                    mixed = small_mbv2(images)
                assert mixed.dtype == torch.bfloat16
                assert small_mbv2(images).dtype == torch.float32
            assert F.cosine_similarity(mixed.float().flatten(), exact.flatten(), dim=0) > 0.8
            assert (mixed.float() - exact).abs().mean() > 1e-4 * exact.std()
