from __future__ import annotations

import os

import pytest
import torch

# "cpu" runs what of these tests needs no GPU, to test the tests: make test-gpu DEVICE=cpu
DEVICE = os.environ.get("PSS_RAZOR_TEST_DEVICE", "cuda")


@pytest.fixture(scope="session")
def device() -> str:
    """Where the tests run: the GPU, whose kernels then compute in float32 proper."""
    if DEVICE == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return DEVICE


@pytest.fixture
def only_on_a_gpu() -> None:
    """For what has no counterpart on a CPU."""
    if DEVICE != "cuda":
        pytest.skip(f"PSS_RAZOR_TEST_DEVICE={DEVICE}: this needs a GPU")
