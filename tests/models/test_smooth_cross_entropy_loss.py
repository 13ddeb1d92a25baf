"""Cross-entropy with smoothed labels, against mmcls' own and against numbers made by hand."""

import math

import pytest
import torch
from fake_cuda import FakeCUDA

from pss_razor.core import ConfigError
from pss_razor.models import SmoothCrossEntropyLoss

from mmcls.models.losses import LabelSmoothLoss


def test_by_hand():
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]).log()
    # 0.3 of the probability is spread over three classes.
    first = -(0.8 * math.log(0.7) + 0.1 * math.log(0.2) + 0.1 * math.log(0.1))
    second = -(0.1 * math.log(0.25) + 0.1 * math.log(0.25) + 0.8 * math.log(0.5))
    loss = SmoothCrossEntropyLoss(0.3)(logits, torch.tensor([0, 2]), avg_factor=2)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.parametrize("mixed", [False, True])
def test_equals_that_of_mmcls(mixed):
    logits = torch.randn(5, 10, dtype=torch.float64, requires_grad=True)
    labels = torch.rand(5, 10, dtype=torch.float64).softmax(1) if mixed else torch.arange(5)
    theirs = LabelSmoothLoss(0.1, mode="original")(logits, labels, avg_factor=5)
    ours = SmoothCrossEntropyLoss(0.1)(logits, labels, avg_factor=5)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-7)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


def test_does_not_wait_for_the_device():
    with FakeCUDA() as cuda:
        logits, labels = torch.randn(4, 10, device="cuda"), torch.zeros(4, dtype=torch.long, device="cuda")
        SmoothCrossEntropyLoss(0.1)(logits, labels)
        assert cuda.take() == []


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_share_that_is_none(value):
    with pytest.raises(ConfigError, match="label_smooth_val"):
        SmoothCrossEntropyLoss(value)
