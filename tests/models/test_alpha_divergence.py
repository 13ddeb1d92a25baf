"""The adaptive alpha-divergence, against the paper's definition in float64."""

import math

import numpy as np
import pytest
import torch

from pss_razor.core import ConfigError
from pss_razor.models import AlphaDivergence, KLDistillation

UNCLIPPED = math.inf


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def divergence(p, q, alpha):
    """The definition, and its limits; (N,)."""
    if alpha == 1:
        return (p * np.log(p / q)).sum(1)
    if alpha == 0:
        return (q * np.log(q / p)).sum(1)
    return (q * ((p / q) ** alpha - 1)).sum(1) / (alpha * (alpha - 1))


def logits_of(seed=0, spread=2.0, shape=(16, 10)):
    generator = np.random.default_rng(seed)
    return spread * generator.standard_normal(shape), spread * generator.standard_normal(shape)


@pytest.mark.parametrize("alphas", [(-1, 1), (-1, 0), (0, 1), (0.5, 0.5), (-0.7, 2.3), (2, 2), (1, 1), (0, 0)])
def test_is_the_larger_of_two_sample_by_sample(alphas):
    student, teacher = logits_of(spread=0.6)
    p, q = softmax(teacher), softmax(student)
    both = np.array([divergence(p, q, alpha) for alpha in alphas])
    loss = AlphaDivergence(*alphas, UNCLIPPED)(torch.from_numpy(student), torch.from_numpy(teacher))
    assert loss.item() == pytest.approx(both.max(0).mean(), rel=1e-9)
    if alphas == (-1, 1):
        assert 0 < (both[0] > both[1]).sum() < 16, "either is the larger somewhere"
        assert loss.item() > 1.001 * both.mean(1).max(), "the larger of the means is another number"


@pytest.mark.parametrize("alphas", [(-1, 1), (-0.7, 2.3), (0, 0), (0.5, 0.5)])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_unclipped_gradient_is_that_of_the_definition(alphas, temperature):
    student, teacher = map(torch.from_numpy, logits_of(1, 1.0))
    student.requires_grad_()
    (ours,) = torch.autograd.grad(AlphaDivergence(*alphas, UNCLIPPED, temperature)(student, teacher), student)
    p, q = ((logits / temperature).softmax(1) for logits in (teacher, student))
    both = []
    for alpha in alphas:
        if alpha in (0, 1):
            both.append((p * (p / q).log()).sum(1) if alpha else (q * (q / p).log()).sum(1))
        else:
            both.append((q * ((p / q) ** alpha - 1)).sum(1) / (alpha * (alpha - 1)))
    (expected,) = torch.autograd.grad(torch.maximum(*both).mean() * temperature**2, student)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.0, 2.0])
def test_clipped_gradient(alpha):
    """``-1 / alpha * sum_i min((p_i / q_i)^alpha, clip) * dq_i / dz_j``, by loops."""
    student, teacher = logits_of(2, 1.5, (3, 4))
    p, q = softmax(teacher), softmax(student)
    ratios = (p / q) ** alpha
    clip = float(np.median(ratios[ratios > 1]))
    assert (ratios > clip).any()
    expected = np.zeros_like(q)
    for n, i, j in np.ndindex(3, 4, 4):
        jacobian = q[n, i] * ((i == j) - q[n, j])
        expected[n, j] -= min(ratios[n, i], clip) * jacobian / alpha / 3
    logits = torch.from_numpy(student).requires_grad_()
    AlphaDivergence(alpha, alpha, clip)(logits, torch.from_numpy(teacher)).backward()
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.0, 2.0])
def test_clipped_value(alpha):
    """The integral of f'' twice, f'' being 0 where the ratio is clipped: no formula of f."""
    student, teacher = logits_of(4, 1.5, (1, 6))
    p, q = softmax(teacher)[0], softmax(student)[0]
    clip = 1.5
    assert ((p / q) ** alpha > clip).any()
    expected = 0.0
    for p_i, q_i in zip(p, q, strict=True):
        # f(t) = integral from 1 to t of (t - s) f''(s) ds, with f(1) = f'(1) = 0.
        s = np.linspace(1, p_i / q_i, 200_001)
        middles, step = (s[1:] + s[:-1]) / 2, s[1] - s[0]
        second = np.where(middles**alpha > clip, 0.0, middles ** (alpha - 2))
        expected += q_i * ((p_i / q_i - middles) * second).sum() * step
    loss = AlphaDivergence(alpha, alpha, clip)(torch.from_numpy(student), torch.from_numpy(teacher))
    assert loss.item() == pytest.approx(expected, rel=1e-3)


def test_alpha_1_is_kl():
    student, teacher = (torch.from_numpy(logits).float() for logits in logits_of())
    student.requires_grad_()
    losses = [loss(student, teacher) for loss in (AlphaDivergence(1, 1, UNCLIPPED), KLDistillation())]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in losses))


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_limits_are_limits(near):
    student, teacher = map(torch.from_numpy, logits_of())
    for beside in (near - 1e-5, near + 1e-5):
        losses = [AlphaDivergence(alpha, alpha, UNCLIPPED)(student, teacher).item() for alpha in (near, beside)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_the_teacher_gets_no_gradient():
    student, teacher = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    AlphaDivergence()(student, teacher.detach()).backward()
    assert teacher.grad is None and student.grad.any()


@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0, 20.0, 1e4])
def test_float32_is_finite_and_near_float64(spread):
    student, teacher = logits_of(3, spread)
    results = []
    for dtype in (torch.float32, torch.float64):
        logits = torch.from_numpy(student).to(dtype).requires_grad_()
        loss = AlphaDivergence()(logits, torch.from_numpy(teacher).to(dtype))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()
        assert gradient.abs().max() <= 5.0 / 16  # the clip over the number of images
        results.append((loss.item(), gradient.double()))
    (loss, gradient), (exact_loss, exact_gradient) = results
    assert loss == pytest.approx(exact_loss, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(gradient, exact_gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(alpha_min=2.0), "alpha_min = 2.0 must not be above alpha_max = 1.0"),
        (dict(clip=0.5), "clip = 0.5 must be at least 1"),
        (dict(clip=math.nan), "clip = nan must be at least 1"),
        (dict(temperature=0), "AlphaDivergence: temperature = 0 must be above 0"),
    ],
)
def test_options(options, message):
    with pytest.raises(ConfigError, match=message):
        AlphaDivergence(**options)
