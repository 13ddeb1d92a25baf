"""What all tests share. Importing this needs neither torch nor OpenMMLab, so that tests/core runs without them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference figures, which is not part of the project."""
    path = ROOT.parent / "shared" / "reference"
    if not path.is_dir():
        pytest.skip(f"no reference figures at {path}")
    return path


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """For fixtures of a session or a module as for tests: another number of threads rounds differently."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _plain_layout() -> None:
    """A fifth of a tiny training is spent on the layout of its config's text, at the start and in every checkpoint."""
    if "mmengine.config.config" in sys.modules:
        sys.modules["mmengine.config.config"].FormatCode = lambda text, **style: (text, True)


@pytest.fixture(autouse=True)
def _stack() -> None:
    """One thread and a seed, and MMRazor's registries for configs without a scope, if a test's imports need them."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
        sys.modules["torch"].manual_seed(0)
    if "mmengine" in sys.modules:
        import pss_razor.plugin  # noqa: F401

        from mmengine.registry import init_default_scope

        init_default_scope("mmrazor")


@pytest.fixture(scope="session")
def load_config() -> Callable[..., Any]:
    """Load a shipped config by name: ``load_config("pss_mbv2_flops", **{"model.channels_last": False})``."""
    from pss_razor import registry  # noqa: F401 - mends the stack

    from mmengine.config import Config

    def load(name: str, **options: Any) -> Config:
        config = Config.fromfile(ROOT / "configs" / "pss" / f"{name}.py")
        config.merge_from_dict(options)
        return config

    return load


@pytest.fixture(scope="session")
def build_algorithm(load_config: Callable[..., Any]) -> Callable[..., Any]:
    """A new algorithm of a shipped config; options override ``model``: ``build_algorithm(name, channels_last=False)``.

    Dots in a key are written as in a config option: ``**{"architecture.head.num_classes": 10}``.
    """
    import logging

    import torch

    def build(name: str = "pss_mbv2_flops", seed: int = 0, **options: Any) -> Any:
        config = load_config(name, **{f"model.{key}": value for key, value in options.items()})
        from pss_razor.registry import MODELS

        from mmengine.registry import init_default_scope

        init_default_scope("mmrazor")
        torch.manual_seed(seed)
        algorithm = MODELS.build(config.model)
        logging.disable(logging.INFO)  # MMEngine reports every parameter
        try:
            algorithm.init_weights()
        finally:
            logging.disable(logging.NOTSET)
        return algorithm

    return build


@pytest.fixture(scope="session")
def imagenet_mbv2(build_algorithm: Callable[..., Any]) -> Any:
    """The supernet of configs/pss/pss_mbv2_flops.py, for tests that leave it as it was."""
    return build_algorithm("pss_mbv2_flops")
