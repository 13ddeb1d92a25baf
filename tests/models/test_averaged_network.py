"""The moving average of a network's weights."""

import copy

import pytest
import torch
from torch import nn

from pss_razor.models.algorithms.averaged_network import AveragedNetwork

from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2))


def change(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return {name: parameter.detach().double() for name, parameter in copy.deepcopy(module).named_parameters()}


def assert_equals(average, expected):
    for name, parameter in average.network.named_parameters():
        torch.testing.assert_close(parameter.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_is_the_average_by_hand():
    student = network()
    average = AveragedNetwork(student, 0.1)
    expected = change(student, 0)
    average.update(student)
    assert_equals(average, expected)  # the first is copied
    for seed in (1, 2, 3):
        new = change(student, seed)
        average.update(student)
        expected = {name: 0.9 * expected[name] + 0.1 * new[name] for name in expected}
        assert_equals(average, expected)
    assert average.updates == 4 and not any(p.requires_grad for p in average.parameters())


def test_normalises_by_the_batch_and_without_dropout():
    student = network()
    average = AveragedNetwork(student, 0.1).train()
    images = torch.randn(8, 3, 6, 6)
    student.train()
    student[2].p = 0.0
    torch.testing.assert_close(average(images), student(images))
    torch.testing.assert_close(average(images), average(images))
    assert student[1].running_mean.any(), "the student keeps its statistics"
    assert not any("running" in name for name in average.state_dict())


@pytest.mark.parametrize("saved_by", ["torch", "mmengine"])
def test_goes_on_from_a_checkpoint(tmp_path, saved_by):
    student = network()
    average = AveragedNetwork(student, 0.1)
    for seed in (0, 1):
        change(student, seed)
        average.update(student)
    resumed = AveragedNetwork(network(), 0.1)
    resumed.update(network())  # what it had before does not count
    if saved_by == "torch":
        resumed.load_state_dict(average.state_dict())
    else:
        save_checkpoint({"state_dict": get_state_dict(average)}, str(tmp_path / "average.pth"))
        load_checkpoint(resumed, str(tmp_path / "average.pth"), strict=True)
    change(student, 2)
    average.update(student)
    resumed.update(student)
    assert all(map(torch.equal, average.state_dict().values(), resumed.state_dict().values()))
    assert resumed.updates == 3


def test_moves_with_the_module_that_it_is_part_of():
    student = network()
    owner = nn.ModuleList([student, AveragedNetwork(student, 0.1)]).double()
    owner[1].update(student)
    assert owner[1](torch.randn(2, 3, 6, 6, dtype=torch.float64)).dtype == torch.float64
