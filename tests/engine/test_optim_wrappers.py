from __future__ import annotations

import pytest
import torch

from pss_razor.engine import CPUAmpOptimWrapper, MergedGroupsConstructor

from mmengine.optim import build_optim_wrapper

OPTIMIZER = dict(type="SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, dwconv_decay_mult=0.0)


@pytest.fixture(scope="module")
def model(make_runner, tmp_path_factory):
    return make_runner(tmp_path_factory.mktemp("model")).model


def test_two_groups_and_every_parameter_once(model):
    config = dict(optimizer=OPTIMIZER, paramwise_cfg=NO_DECAY, constructor="MergedGroupsConstructor")
    groups = build_optim_wrapper(model, config).optimizer.param_groups
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 1e-4]
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, parameters)) == sorted(map(id, model.parameters()))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            ordinary = isinstance(module, torch.nn.Linear) or (
                isinstance(module, torch.nn.Conv2d) and module.groups == 1
            )
            assert (id(parameter) in decayed) == (ordinary and key == "weight"), f"{name}.{key}"


def test_same_options_as_mmengines_constructor(model):
    def options(constructor):
        config = dict(
            optimizer=OPTIMIZER,
            paramwise_cfg=dict(NO_DECAY, custom_keys={"head": dict(lr_mult=10.0)}),
            constructor=constructor,
        )
        groups = build_optim_wrapper(model, config).optimizer.param_groups
        keys = ("lr", "weight_decay", "momentum")
        return {id(p): [group[key] for key in keys] for group in groups for p in group["params"]}, len(groups)

    ours, count = options("MergedGroupsConstructor")
    theirs, _ = options("DefaultOptimWrapperConstructor")
    assert ours == theirs and count == 4


def test_without_paramwise_cfg(model):
    groups = MergedGroupsConstructor(dict(type="OptimWrapper", optimizer=OPTIMIZER))(model).optimizer.param_groups
    assert len(groups) == 1 and len(groups[0]["params"]) == len(list(model.parameters()))


def test_mixed_precision_on_a_cpu():
    layer = torch.nn.Linear(3, 3)
    wrapper = CPUAmpOptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1))
    with wrapper.optim_context(layer):
        output = layer(torch.ones(2, 3))
    assert output.dtype is torch.bfloat16
    before = layer.weight.clone()
    wrapper.update_params(output.float().sum())
    assert layer.weight.dtype is torch.float32 and not torch.equal(layer.weight, before)
    assert layer(torch.ones(2, 3)).dtype is torch.float32  # outside of the context
