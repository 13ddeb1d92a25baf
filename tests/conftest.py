"""What all tests share. Importing this needs neither torch nor OpenMMLab, so that tests/core runs without them."""

import copy
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "tiny" / "tiny_supernet.py"
_names = itertools.count()


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
def stand_in_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In place of a download, torchvision's loader finds the weights of a network with random ones (seed 7)."""
    import torch
    import torchvision

    models = {
        weights.url: name
        for name in torchvision.models.list_models(module=torchvision.models)
        for weights in torchvision.models.get_model_weights(name)
    }

    def download(url: str, path: str, *arguments: Any, **options: Any) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            torch.save(torchvision.models.get_model(models[url]).state_dict(), path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))
        patch.setattr(torch.hub, "download_url_to_file", download)
        yield


@pytest.fixture(scope="session")
def imagenet_mbv2(build_algorithm: Callable[..., Any]) -> Any:
    """The supernet of configs/pss/pss_mbv2_flops.py, for tests that leave it as it was."""
    return build_algorithm("pss_mbv2_flops")


@pytest.fixture(scope="session")
def make_runner():
    """``make_runner(work_dir, {key: value})``: a runner of the tiny config, or of the one given as third argument.

    A key with dots is merged into the config, one without replaces what is there.
    """

    from pss_razor.engine.launch import build_runner, load_config

    def make(work_dir, options=None, path=TINY):
        config = load_config(str(path), None, "none", str(work_dir))
        # mmengine calls a run after the second in which it starts, and keeps logs and histories of runs by that name.
        config.experiment_name = f"test_{next(_names)}"
        for key, value in (options or {}).items():
            if "." in key:
                config.merge_from_dict({key: value})
            else:
                config[key] = value
        return build_runner(config)

    return make


@pytest.fixture(scope="session")
def get_sampler():
    """The sampler, with the pools, of a runner that has started."""
    return lambda runner: next(hook.sampler for hook in runner.hooks if hasattr(hook, "sampler"))


@pytest.fixture(scope="session")
def straight(make_runner, tmp_path_factory):
    """The work directory of a training that was never stopped, with the checkpoint of every epoch."""
    work_dir = tmp_path_factory.mktemp("straight")
    make_runner(work_dir).train()
    return work_dir


@pytest.fixture(scope="session")
def _tested(make_runner, straight, tmp_path_factory):
    runner = make_runner(tmp_path_factory.mktemp("tested"), {"load_from": str(straight / "epoch_3.pth")})
    runner.test()
    return runner


@pytest.fixture
def tested(_tested, get_sampler):
    """A runner that has the trained weights and pools and has evaluated them; shared, and mended after each test."""
    algorithm, sampler = _tested.model, get_sampler(_tested)
    before = copy.deepcopy((algorithm.state_dict(), sampler.state_dict()))
    capacities = [pool.capacity for pool in sampler.pools.values()]
    yield _tested
    for pool, capacity in zip(sampler.pools.values(), capacities, strict=True):
        pool.capacity = capacity
    sampler.load_state_dict(before[1])
    algorithm.load_state_dict(before[0])
    algorithm.mutator.activate(algorithm.space.largest)
    algorithm.eval()


@pytest.fixture(scope="session")
def assert_same():
    """Compare nested containers, bit by bit; the path of the first difference is in the message."""

    import torch

    def compare(a, b, path="") -> None:
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), path
        elif isinstance(a, dict):
            assert list(a) == list(b), path
            for key in a:
                compare(a[key], b[key], f"{path}/{key}")
        elif isinstance(a, (list, tuple)):
            assert type(a) is type(b) and len(a) == len(b), path
            for index, items in enumerate(zip(a, b, strict=True)):
                compare(*items, f"{path}/{index}")
        else:
            assert type(a) is type(b) and a == b, f"{path}: {a} != {b}"

    return compare


@pytest.fixture(scope="session")
def assert_same_training(assert_same):
    """Compare two checkpoints: weights, BN statistics, optimizer, learning rate, pools, sampler and random states.

    ``message_hub`` is left out: it holds times.
    """

    import torch

    def compare(path_a, path_b) -> None:
        a, b = (torch.load(path, weights_only=True) for path in (path_a, path_b))
        parts = ("state_dict", "optimizer", "param_schedulers", "pss", "random_state")
        assert a["meta"]["epoch"] == b["meta"]["epoch"] and a["meta"]["iter"] == b["meta"]["iter"]
        assert_same({part: a[part] for part in parts}, {part: b[part] for part in parts})

    return compare
