"""RMSprop as TensorFlow has it, against its definition in plain numbers."""

import copy

import pytest
import torch

from pss_razor.core import ConfigError
from pss_razor.engine import RMSpropTF

from mmengine.optim import build_optim_wrapper


def test_follows_its_definition():
    lr, alpha, momentum, eps, decay = 0.1, 0.9, 0.8, 1e-3, 0.01
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = RMSpropTF([parameter], lr=lr, alpha=alpha, momentum=momentum, eps=eps, weight_decay=decay)
    weight, average, step = 1.0, 1.0, 0.0
    for index, gradient in enumerate([0.5, -2.0, 3.0, 0.1]):
        if index == 2:  # what is in the momentum keeps its learning rate
            lr = optimizer.param_groups[0]["lr"] = 0.01
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        total = gradient + decay * weight
        average = alpha * average + (1 - alpha) * total**2
        step = momentum * step + lr * total / (average + eps) ** 0.5
        weight -= step
        assert float(parameter.detach()) == pytest.approx(weight, rel=1e-12)


def test_parameters_without_gradient_stay():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = RMSpropTF([used, unused], lr=0.1, weight_decay=0.5)
    used.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2)) and not torch.equal(used, torch.ones(2))


def test_continues_from_its_state():
    def run(parameter, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            ((parameter * (step + 1)) ** 2).sum().backward()
            optimizer.step()

    first = torch.nn.Parameter(torch.ones(3))
    optimizer = RMSpropTF([first], lr=0.1, momentum=0.9)
    run(first, optimizer, range(3))
    second = torch.nn.Parameter(first.detach().clone())
    resumed = RMSpropTF([second], lr=0.1, momentum=0.9)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch shares the tensors
    run(first, optimizer, range(3, 6))
    run(second, resumed, range(3, 6))
    assert torch.equal(first, second)


def test_is_found_by_its_name():
    config = dict(optimizer=dict(type="RMSpropTF", lr=0.1))
    assert isinstance(build_optim_wrapper(torch.nn.Linear(1, 1), config).optimizer, RMSpropTF)


def test_negative_values():
    with pytest.raises(ConfigError, match="eps = -1"):
        RMSpropTF([torch.nn.Parameter(torch.ones(1))], eps=-1)
