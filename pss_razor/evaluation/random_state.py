"""The random states of a process."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """States of Python's, numpy's and torch's global generators, as plain values and tensors."""
    state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`get_random_state` returned; GPU states only where as many GPUs are visible."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def seed_generators(seed: int, *branch: int) -> None:
    """Seed Python's, numpy's and torch's global generators, with another stream for every branch of a seed."""
    sequence = np.random.SeedSequence(seed, spawn_key=branch)
    python_seed, torch_seed = sequence.generate_state(2, np.uint64).tolist()
    random.seed(python_seed)
    np.random.seed(sequence.generate_state(4))
    torch.manual_seed(torch_seed)


@contextlib.contextmanager
def isolated_random_state(seed: int) -> Iterator[None]:
    """Run the body with seeded generators, and restore their states afterwards."""
    state = get_random_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(state)
