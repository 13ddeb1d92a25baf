"""What subnets learn by: the Kullback-Leibler divergence of a teacher and a student."""

import math

import pytest
import torch
from torch.nn import functional as F

from pss_razor.core import ConfigError
from pss_razor.models import KLDistillation


def test_by_hand():
    teacher = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    student = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log() + 3.0  # logits are free up to a constant
    expected = (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2
    assert KLDistillation()(student, teacher).item() == pytest.approx(expected, rel=1e-6)
    reverse = (0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)) / 2
    assert KLDistillation()(teacher, student).item() == pytest.approx(reverse, rel=1e-6)
    assert KLDistillation()(student, student + 1).item() == pytest.approx(0, abs=1e-7)


def test_gradient_is_the_difference_of_probabilities():
    teacher, student = torch.randn(4, 5), torch.randn(4, 5, requires_grad=True)
    KLDistillation()(student, teacher).backward()
    torch.testing.assert_close(student.grad, (student.detach().softmax(1) - teacher.softmax(1)) / 4)


def test_extreme_logits():
    """A certain teacher: 0 · log 0 is 0."""
    loss = KLDistillation()(torch.zeros(1, 2), torch.tensor([[200.0, -200.0]]))
    assert loss.item() == pytest.approx(math.log(2))


def test_temperature():
    teacher, student = torch.randn(4, 5), torch.randn(4, 5)
    p, q = (logits.div(3).softmax(1) for logits in (teacher, student))
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    assert KLDistillation(3.0)(student, teacher).item() == pytest.approx(expected.item(), rel=1e-4)


def test_at_temperature_1_the_bits_are_those_of_torch():
    teacher, student = torch.randn(8, 10), torch.randn(8, 10)
    log_q, log_p = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
    assert torch.equal(
        KLDistillation()(student, teacher), F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    )


@pytest.mark.parametrize("temperature", [0, -1.0, math.inf])
def test_no_temperature(temperature):
    with pytest.raises(ConfigError, match=f"KLDistillation: temperature = {temperature} must be above 0"):
        KLDistillation(temperature)
