from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

GROUPS = ("stem", *(f"stage{stage}" for stage in range(1, 8)))
SMALL = {
    "architecture.resolutions": [32, 40, 48, 56, 64],
    "architecture.head.num_classes": 10,
    "data_preprocessor.mean": None,
    "data_preprocessor.std": None,
    "data_preprocessor.to_rgb": False,
    "constraints": [dict(metric="flops", first=6, last=24, step=1)],
}


@pytest.fixture(scope="session")
def build_small(build_algorithm: Callable[..., Any]) -> Callable[..., Any]:
    """The shipped MobileNetV2 at 32 to 64 pixels, 10 classes, inputs taken as they are: the reference's setting."""

    def build(**options: Any) -> Any:
        return build_algorithm("pss_mbv2_flops", **{**SMALL, **options})

    return build


@pytest.fixture(scope="session")
def small_mbv2(build_small: Callable[..., Any]) -> Any:
    """For tests that leave it as it was, statistics and training mode aside."""
    return build_small()


@pytest.fixture
def random_subnet() -> Callable[..., Any]:
    """Draw uniformly over the choices of a space."""
    generator = np.random.default_rng(0)
    return lambda space: space.decode(generator.integers(space.shape))


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., dict]:
    """Images and labels as a data loader with ``default_collate`` gives them."""
    from mmcls.structures import ClsDataSample

    def make(inputs: torch.Tensor | None = None, labels: torch.Tensor | None = None, seed: int = 0) -> dict:
        generator = torch.Generator().manual_seed(seed)
        if inputs is None:
            inputs = torch.randn(8, 3, 64, 64, generator=generator)
        if labels is None:
            labels = torch.randint(10, (len(inputs),), generator=generator)
        return dict(inputs=inputs, data_samples=[ClsDataSample().set_gt_label(int(label)) for label in labels])

    return make


@pytest.fixture(scope="session")
def reference_subnet() -> Callable[..., dict]:
    """A subnet of the reference files as choices. Its last width is not searched: the last conv keeps its 1280."""

    def convert(record: dict) -> dict:
        return dict(zip(GROUPS, record["channels"][:8], strict=True)) | dict(resolution=record["resolution"])

    return convert


@pytest.fixture(scope="session")
def load_reference_state() -> Callable[..., dict[str, str]]:
    """Load a reference state dict by position; returns the reference's name of each of ours."""

    def load(architecture: torch.nn.Module, state: dict[str, torch.Tensor]) -> dict[str, str]:
        own = architecture.state_dict()
        assert len(own) == len(state) == 314
        names = dict(zip(own, state, strict=True))
        for name, theirs in names.items():
            assert own[name].shape == state[theirs].shape, (name, theirs)
        architecture.load_state_dict({name: state[theirs] for name, theirs in names.items()})
        return names

    return load


@pytest.fixture(scope="session")
def build_optimizer(load_config: Callable[..., Any]) -> Callable[..., Any]:
    """The optimizer of configs/_base_/schedules/imagenet_pss_250e.py; options override ``optim_wrapper``."""
    from mmengine.optim import build_optim_wrapper

    def build(model: torch.nn.Module, **options: Any) -> Any:
        options = {f"optim_wrapper.{key}": value for key, value in options.items()}
        return build_optim_wrapper(model, load_config("pss_mbv2_flops", **options).optim_wrapper)

    return build


@pytest.fixture(scope="session")
def calibrate() -> Callable[..., Any]:
    """Evaluation mode with the BN statistics of a batch, so that logits have the size of a trained network's."""

    def run(algorithm: Any, images: torch.Tensor) -> Any:
        norms = [m for m in algorithm.modules() if hasattr(m, "running_mean")]
        momenta = [m.momentum for m in norms]
        for m in norms:
            m.momentum = 1.0
        with torch.no_grad():
            algorithm.train()
            algorithm(images)
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        return algorithm.eval()

    return run
