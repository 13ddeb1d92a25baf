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


@pytest.fixture(autouse=True)
def _stack() -> None:
    """One thread, and MMRazor's registries for configs without a scope, if the test's imports need them at all."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "mmengine" in sys.modules:
        import pss_razor.plugin

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
