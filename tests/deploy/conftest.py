from __future__ import annotations

import pytest
import torch
from torch import nn

from pss_razor.deploy import StaticNet, trace_static


class Block(nn.Module):
    """A residual block whose activation is used twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x + self.conv2(self.act(self.norm1(self.conv1(x)))))


class SmallNet(nn.Module):
    def __init__(self, channels: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.block = Block(channels)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor, mode: str = "tensor") -> torch.Tensor:
        if mode != "tensor":
            raise RuntimeError(mode)
        x = self.pool(self.block(self.stem(images)))
        return self.fc(x.view(x.size(0), -1))


@pytest.fixture
def small_model() -> SmallNet:
    torch.manual_seed(0)
    model = SmallNet()
    with torch.no_grad():  # statistics that an exact copy must have
        model.block.norm1.running_mean.normal_()
        model.block.norm1.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture
def small_net(small_model: SmallNet) -> StaticNet:
    return trace_static(small_model, 16)
