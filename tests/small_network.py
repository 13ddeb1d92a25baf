"""A small network, images and loaders for what works without a config."""

from __future__ import annotations

import functools

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pss_razor

SIDE = 16


class Block(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return x + self.body(x)


class SmallNetwork(nn.Module):
    """Residual, for images of 16 pixels."""

    def __init__(self, num_classes=10, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(16, 24), Block(16, 32))
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def small_supernet(num_classes=10, channels=3, seed=0, **options):
    torch.manual_seed(seed)
    options = {"resolutions": [12, 16], "divisor": 4, **options}
    return pss_razor.convert(SmallNetwork(num_classes, channels), torch.randn(2, channels, SIDE, SIDE), **options)


@functools.cache
def digits():
    """All of scikit-learn's, normalised, and their labels."""
    images, labels = load_digits(return_X_y=True)
    pixels = (torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16 - 0.3) / 0.38
    return F.interpolate(pixels, SIDE, mode="bilinear").expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(labels)


def part(first, last):
    images, labels = digits()
    return TensorDataset(images[first:last], labels[first:last])


def train_loader(dataset=None, **options):
    return DataLoader(dataset or part(0, 96), **{"batch_size": 16, "shuffle": True, "drop_last": True, **options})


def measured_loader(first=1000, last=1060):
    return DataLoader(part(first, last), batch_size=24)
