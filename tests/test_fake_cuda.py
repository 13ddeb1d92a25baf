"""What the stand-in for a GPU finds, against what is known of CUDA."""

from __future__ import annotations

import copy

import pytest
import torch
from fake_cuda import CUDA, FakeCUDA
from torch import nn
from torch.nn import functional as F


@pytest.fixture
def cuda():
    with FakeCUDA() as mode:
        yield mode


def test_a_training_step_stays_on_the_device_and_computes_the_same(cuda):
    def train(device):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
        model.to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)
        images, labels = images.to(device), labels.to(device)
        cuda.take()
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return model

    model = train("cuda")
    assert cuda.take() == []
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    assert len(tensors) == 15 and all(tensor.device == CUDA and tensor.is_cuda for tensor in tensors)
    expected = train("cpu")
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert theirs.device.type == "cpu" and torch.equal(ours.cpu(), theirs)


@pytest.mark.parametrize(
    ("kind", "wait"),
    [
        ("read", lambda x: x.sum().item()),
        ("read", lambda x: float(x.sum())),
        ("read", lambda x: bool(x.sum() > 0)),
        ("read", lambda x: [1, 2, 3][x.sum().long() * 0]),
        ("read", lambda x: x[x.sum().long() * 0]),
        ("read", lambda x: x.tolist()),
        ("read", lambda x: x.cpu()),
        ("read", lambda x: x.to(torch.empty(1))),
        ("read", lambda x: torch.empty(3, 4).copy_(x)),
        ("read", lambda x: x.nonzero()),
        ("read", lambda x: x[x > 0]),
        ("read", lambda x: torch.equal(x, x)),
        ("read", lambda x: torch.unique(x)),
        ("copy", lambda x: torch.ones(3).to("cuda")),
        ("copy", lambda x: torch.ones(3).cuda()),
        ("copy", lambda x: torch.ones(3).to("cuda", non_blocking=True)),  # not pinned
        ("copy", lambda x: torch.ones(3).pin_memory().to("cuda")),
        ("copy", lambda x: torch.tensor([1.0], device="cuda")),
        ("copy", lambda x: x.copy_(torch.ones(3, 4))),
        ("copy", lambda x: x[torch.tensor([0, 1])]),
    ],
)
def test_waits(cuda, kind, wait):
    x = torch.ones(3, 4, device="cuda")
    assert cuda.take() == []
    wait(x)
    (noted,) = cuda.take()
    assert noted.kind == kind and noted.stack[-1] == "test_fake_cuda:<lambda>", str(noted)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x + torch.tensor(1.0),
        lambda x: (x + 1).half().float().contiguous(memory_format=torch.channels_last),
        lambda x: x[:2, 1:3].as_strided((2, 2), (2, 1)),
        lambda x: F.one_hot(torch.zeros(2, 2, device="cuda").long() + x.size(0) * 0, 3).float()[0],
        lambda x: torch.zeros_like(x),
        lambda x: x.new_zeros(3),
        lambda x: torch.arange(3, device=x.device),
        lambda x: copy.deepcopy(x),
        lambda x: nn.Parameter(x).detach(),
        lambda x: torch.ones(3).pin_memory().to("cuda", non_blocking=True),
        lambda x: x.to("cuda"),
        lambda x: x.clone().set_(x),
    ],
)
def test_what_stays_on_the_device(cuda, call):
    result = call(torch.ones(3, 4, 2, 2, device="cuda"))
    assert result.device == CUDA


def test_a_copy_to_the_host_that_does_not_wait(cuda):
    x = torch.ones(2, device="cuda")
    assert not x.to("cpu", non_blocking=True).is_cuda and cuda.take() == []


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(4),
        lambda x: torch.cat([x, torch.ones(3, 4)]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: F.cross_entropy(x, torch.zeros(3, dtype=torch.long)),
        lambda x: F.linear(x, torch.ones(2, 4)),
        lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4, device="cuda"), training=True),
    ],
)
def test_mixtures_are_refused(cuda, mix):
    with pytest.raises(RuntimeError, match="two different devices"):
        mix(torch.ones(3, 4, device="cuda"))


def test_numpy_is_refused(cuda):
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        torch.ones(3, device="cuda").numpy()


def test_nothing_is_left_behind(cuda):
    assert torch.ones(2).is_cpu and torch.ones(2).numpy().sum() == 2
    x = torch.ones(2, requires_grad=True)
    x.sum().backward()
    assert cuda.take() == [] and x.grad.device.type == "cpu"
