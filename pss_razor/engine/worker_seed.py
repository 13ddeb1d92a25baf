"""Random numbers of data loader workers."""

from __future__ import annotations

import os
from typing import Any

import torch

from pss_razor.evaluation.random_state import seed_generators
from pss_razor.registry import FUNCTIONS

from mmengine.dist import get_rank, is_distributed


@FUNCTIONS.register_module()
def epoch_worker_seed(worker_id: int, **kwargs: Any) -> None:
    """Give a worker random numbers of its own: of its rank, its place among the workers, and the epoch.

    torch seeds each worker from a number that the main process draws every epoch, so that epochs and workers differ and
    a resumed run continues exactly. The rank is added here, since main processes may be seeded alike. mmengine's
    default gives a worker the same numbers in every epoch. Needs ``persistent_workers=False``.

    Example:
        ``train_dataloader=dict(worker_init_fn=dict(type='epoch_worker_seed'), persistent_workers=False, …)``
    """
    # A worker that was spawned and not forked is in no process group, but knows its launcher's variable.
    rank = get_rank() if is_distributed() else int(os.environ.get("RANK", 0))
    seed_generators(torch.initial_seed(), rank)
