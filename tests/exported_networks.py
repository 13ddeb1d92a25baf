"""Fixtures of small networks and bundles, for the tests of what is static, exported and deployed."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pss_razor.deploy import BundledSubnet, round_bn_statistics, save_bundle
from pss_razor.static import StaticNet, trace_static

TINY = Path(__file__).with_name("tiny") / "tiny_supernet.py"


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


@pytest.fixture(scope="session")
def _supernet_subnets() -> list[BundledSubnet]:
    from pss_razor.engine.launch import load_config
    from pss_razor.models import build_supernet
    from pss_razor.models.static_subnet import WithoutResize

    config = load_config(str(TINY), None, "none", "unused")
    torch.manual_seed(0)
    architecture, mutator, _ = build_supernet(config)
    space = mutator.space
    generator = np.random.default_rng(0)
    draws = [space.decode(np.array([generator.integers(n) for n in space.shape])) for _ in range(4)]
    subnets = []
    for index, subnet in enumerate([space.smallest, *draws, space.largest]):
        mutator.activate(subnet)
        net = trace_static(WithoutResize(architecture), subnet["resolution"])
        for buffer in net.buffers():
            if buffer.dim():
                buffer.copy_(round_bn_statistics(torch.rand_like(buffer) + 0.5))
        subnets.append(
            BundledSubnet(
                net=net,
                name=f"subnet_{index}",
                metric="flops",
                target=float(index),
                resources={
                    "flops": float(1 + index),
                    "params": net.num_parameters / 1e6,
                    "latency_cpu": 1000.0 * index,
                },
                accuracy=50.0 + index,
                channels={name: value for name, value in subnet.items() if name != "resolution"},
                resolution=subnet["resolution"],
            )
        )
    return subnets


@pytest.fixture
def supernet_subnets(_supernet_subnets) -> list[BundledSubnet]:
    """Six subnets of a slimmable MobileNetV2, cheaper and less accurate ones first, each with its own BN statistics."""
    return [dataclasses.replace(subnet, net=copy.deepcopy(subnet.net)) for subnet in _supernet_subnets]


@pytest.fixture(scope="session")
def _bundle_bytes(_supernet_subnets, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("bundle") / "bundle.safetensors"
    save_bundle(path, _supernet_subnets, {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "channel_order": "RGB"})
    return path.read_bytes()


@pytest.fixture
def bundle_file(_bundle_bytes, tmp_path) -> Path:
    path = tmp_path / "bundle.safetensors"
    path.write_bytes(_bundle_bytes)
    return path
