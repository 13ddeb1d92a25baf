"""Random numbers of data loader workers."""

from __future__ import annotations

from typing import Any

from pss_razor.registry import FUNCTIONS


@FUNCTIONS.register_module()
def epoch_worker_seed(worker_id: int, **kwargs: Any) -> None:
    """Leave a worker the seeds that torch gave it for this epoch.

    torch seeds torch, numpy and random in each worker from a number that the main process draws every epoch, so that
    epochs differ and a resumed run continues exactly. mmengine's default overwrites them with the same numbers in
    every epoch. Needs ``persistent_workers=False``.

    Example:
        ``train_dataloader=dict(worker_init_fn=dict(type='epoch_worker_seed'), persistent_workers=False, …)``
    """
