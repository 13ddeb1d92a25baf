"""Kullback-Leibler divergence of a teacher and a student."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pss_razor.models.losses.check_temperature import check_temperature
from pss_razor.registry import MODELS


@MODELS.register_module()
class KLDistillation(nn.Module):
    """``KL(teacher || student)``, what subnets learn by in PSS-Net (section 3).

    Args:
        temperature: Both logits are divided by it. The loss is multiplied by its square, so that gradients keep their
            size (Hinton et al., arXiv 1503.02531, section 2).

    Example:
        ``model=dict(type='PSS', distillation=dict(type='KLDistillation', temperature=2.0), …)``
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_temperature(self, temperature)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean over the batch of logits (N, classes); the teacher's are constants."""
        log_q, log_p = (F.log_softmax(logits / self.temperature, 1) for logits in (student, teacher))
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * self.temperature**2
