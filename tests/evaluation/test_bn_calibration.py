from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor.core import Subnet
from pss_razor.evaluation import calibrate_bn, isolated_bn_statistics
from pss_razor.evaluation.bn_calibration import get_bn_statistics, set_bn_statistics


def norms_of(model):
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def statistics_by_hand(algorithm, batches):
    """Mean over batches of each BN's batch mean and unbiased variance, written down by hooks on another copy."""
    algorithm = copy.deepcopy(algorithm).train()  # normalises with batch statistics, as in training
    sums = {}

    def hook(norm, inputs, output):
        x = inputs[0].double().transpose(0, 1).flatten(1)
        mean, var = sums.get(norm, (0, 0))
        sums[norm] = (mean + x.mean(1) / len(batches), var + x.var(1, unbiased=True) / len(batches))

    for norm in norms_of(algorithm):
        norm.register_forward_hook(hook)
    with torch.no_grad():
        for batch in batches:
            algorithm(batch)
    return [sums[norm] for norm in norms_of(algorithm)]


@pytest.fixture
def algorithm(make_runner, tmp_path):
    runner = make_runner(tmp_path)
    runner.model.init_weights()
    return runner.model


@pytest.fixture
def narrow(algorithm):
    subnet = Subnet({**algorithm.space.smallest, "stage6": 40, "resolution": 24})
    algorithm.mutator.activate(subnet)
    return subnet


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, 32, 32, generator=generator) * (i + 1) for i in range(3)]


def test_equals_by_hand(algorithm, narrow, batches):
    expected = statistics_by_hand(algorithm, batches)
    calibrate_bn(algorithm, batches, algorithm)
    statistics = get_bn_statistics(algorithm)
    assert any(len(mean) < norm.num_features for (mean, _), norm in zip(statistics, norms_of(algorithm), strict=True))
    for (mean, var), (expected_mean, expected_var) in zip(statistics, expected, strict=True):
        assert mean.shape == expected_mean.shape
        torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(var.double(), expected_var, rtol=1e-4, atol=1e-6)


def test_what_was_there_before_does_not_count(algorithm, narrow, batches):
    calibrate_bn(algorithm, batches, algorithm)
    expected = get_bn_statistics(algorithm)
    for norm in norms_of(algorithm):
        norm.running_mean.fill_(7)
        norm.running_var.fill_(7)
        norm.num_batches_tracked.fill_(100)
    calibrate_bn(algorithm, batches, algorithm)
    for pair, expected_pair in zip(get_bn_statistics(algorithm), expected, strict=True):
        assert torch.equal(pair[0], expected_pair[0]) and torch.equal(pair[1], expected_pair[1])


def test_weights_have_no_gradients_and_stay(algorithm, batches):
    before = {name: parameter.clone() for name, parameter in algorithm.named_parameters()}
    calibrate_bn(algorithm, batches, algorithm)
    for name, parameter in algorithm.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, before[name])


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_momentum_are_restored(algorithm, batches, fails):
    algorithm.train()
    algorithm.architecture.backbone.layer1.eval()  # modes that are not the same everywhere
    norms_of(algorithm)[0].momentum = 0.01
    modes = [module.training for module in algorithm.modules()]
    momenta = [norm.momentum for norm in norms_of(algorithm)]

    def forward(batch):
        algorithm(batch)
        assert all(norm.training for norm in norms_of(algorithm))
        if fails:
            raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            calibrate_bn(algorithm, batches, forward)
    else:
        calibrate_bn(algorithm, batches, forward)
    assert [module.training for module in algorithm.modules()] == modes
    assert [norm.momentum for norm in norms_of(algorithm)] == momenta


def test_only_bn_is_in_training_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    seen = []
    calibrate_bn(
        model, [torch.randn(4, 3, 2, 2)], lambda x: seen.append((model(x), [m.training for m in model.modules()]))
    )
    assert seen[0][1] == [False, False, True, False]
    assert (seen[0][0] != 0).all()  # nothing dropped
    assert all(module.training for module in model.modules())


def test_bn_without_statistics_is_left_alone():
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3)).eval()
    calibrate_bn(model, [torch.randn(4, 3, 2, 2)], model)
    assert model[0].running_mean is None and len(get_bn_statistics(model)) == 1


def test_isolated_bn_statistics(algorithm, batches):
    calibrate_bn(algorithm, batches, algorithm)
    before = {name: buffer.clone() for name, buffer in algorithm.named_buffers()}
    with pytest.raises(ZeroDivisionError), isolated_bn_statistics(algorithm):
        calibrate_bn(algorithm, batches[:1], algorithm)
        assert any(not torch.equal(buffer, before[name]) for name, buffer in algorithm.named_buffers())
        raise ZeroDivisionError
    for name, buffer in algorithm.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_statistics_are_copies_of_the_active_subnet(algorithm, narrow, batches):
    calibrate_bn(algorithm, batches, algorithm)
    narrow_statistics = get_bn_statistics(algorithm)
    expected = algorithm.eval()(batches[0])
    with algorithm.mutator.active(algorithm.space.largest):
        calibrate_bn(algorithm, batches, algorithm)
    assert not torch.equal(algorithm(batches[0]), expected)
    set_bn_statistics(algorithm, narrow_statistics)
    assert torch.equal(algorithm(batches[0]), expected)


def test_statistics_are_one_piece_of_memory(algorithm, narrow):
    """Of no more than they need; many pieces between large tensors that come and go cost megabytes a subnet."""
    algorithm.mutator.activate(narrow)
    tensors = [tensor for pair in get_bn_statistics(algorithm) for tensor in pair]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    assert len(tensors) > 100 and len(storages) == 1
    assert next(iter(storages.values())).nbytes() == 4 * sum(tensor.numel() for tensor in tensors)
