"""How well a subnet did on a training batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pss_razor.core.errors import TrainingDivergedError
from pss_razor.core.space.subnet import Subnet

# Minus a cross-entropy, or a function that reads it: on a GPU the number is there only when the step has ended.
Score = float | Callable[[], float]


def check_score(subnet: Subnet, score: float) -> None:
    """Check that training has not diverged.

    Raises:
        TrainingDivergedError: The score is not finite.
    """
    if not np.isfinite(score):
        raise TrainingDivergedError(
            f"the score of {subnet} is {score}: the training loss has diverged; lower the learning rate"
        )
