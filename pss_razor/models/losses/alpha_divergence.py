"""The larger of two alpha-divergences of a teacher and a student."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pss_razor.core import ConfigError
from pss_razor.models.losses.check_temperature import check_temperature
from pss_razor.registry import MODELS


@MODELS.register_module()
class AlphaDivergence(nn.Module):
    """Adaptive alpha-divergence (AlphaNet, arXiv 2102.07954).

    With the teacher's probabilities p and the student's q,
    ``D_alpha(p || q) = sum_i q_i ((p_i / q_i)^alpha - 1) / (alpha (alpha - 1))``; the limit at alpha 1 is
    ``KL(p || q)``, that at alpha 0 ``KL(q || p)``. A large alpha punishes a student that misses classes of the teacher,
    a negative one a student that sees classes where the teacher has none. The loss of an image is the larger of the
    divergences at ``alpha_min`` and ``alpha_max``.

    Its gradient is ``-1 / alpha * sum_i (p_i / q_i)^alpha * grad q_i``, in which ``clip`` bounds the importance ratio
    ``(p_i / q_i)^alpha`` of every class. The value is the one with that gradient: an f-divergence again, whose function
    of p_i / q_i goes on as a straight line where the ratio is clipped. The paper's own words on the clipping were not
    at hand, so this is this project's reading.

    Args:
        alpha_min: The smaller alpha.
        alpha_max: The larger alpha.
        clip: Most that a ratio counts, at least 1; infinite for the plain divergence.
        temperature: See :class:`KLDistillation`.

    Example:
        ``distillation=dict(type='AlphaDivergence', alpha_min=-1.0, alpha_max=1.0, clip=5.0)`` of ``PSS``

    Raises:
        ConfigError: The alphas are no interval, the clip is below 1, or the temperature is not positive.
    """

    def __init__(
        self, alpha_min: float = -1.0, alpha_max: float = 1.0, clip: float = 5.0, temperature: float = 1.0
    ) -> None:
        super().__init__()
        if not -math.inf < alpha_min <= alpha_max < math.inf:
            raise ConfigError(f"AlphaDivergence: alpha_min = {alpha_min} must not be above alpha_max = {alpha_max}")
        if not clip >= 1:
            raise ConfigError(f"AlphaDivergence: clip = {clip} must be at least 1, the ratio of equal probabilities")
        self.alphas = (alpha_min, alpha_max)
        self.clip = clip
        self.temperature = check_temperature(self, temperature)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean over the batch of logits (N, classes); the teacher's are constants."""
        log_q, log_p = (F.log_softmax(logits / self.temperature, 1) for logits in (student, teacher))
        both = torch.stack([self._divergence(log_p, log_q, alpha) for alpha in self.alphas])
        return both.max(0).values.mean() * self.temperature**2

    def _divergence(self, log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
        """The clipped ``D_alpha(p || q)`` of each image, (N,).

        With f of the plain divergence and r the ratio p / q up to where it is clipped, the sum over the classes of
        ``q f(r) + f'(r) (p - q r)``. Exponents are added before exp(): the factors alone overflow.
        """
        p, q, log_r = log_p.exp(), log_q.exp(), log_p - log_q
        if alpha == 0:
            return -(q * log_r).sum(1)
        bound = math.log(self.clip) / alpha
        log_r = log_r.clamp(max=bound) if alpha > 0 else log_r.clamp(min=bound)
        if alpha == 1:
            return (p * log_r + p - (log_q + log_r).exp()).sum(1)
        of_q = (log_q + alpha * log_r).exp() - q
        of_p = (log_p + (alpha - 1) * log_r).exp() - p
        return ((1 - alpha) * of_q + alpha * of_p).sum(1) / (alpha * (alpha - 1))
