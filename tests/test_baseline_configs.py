"""The shipped configs of the baselines differ from the method's in the sampler only."""

from pathlib import Path

import pytest

from pss_razor import registry  # noqa: F401 - mends the stack
from pss_razor.engine import BaselineSamplerHook
from pss_razor.engine.launch import load_config as load_file
from pss_razor.models import PSS
from pss_razor.registry import HOOKS

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
METHODS = ["usnet", "mutualnet", "uniform"]
SMALL = ["digits", "fashion", "cifar10", "cifar100"]
BASES = ["mbv1_flops", "mbv2_flops", *(f"mbv2_flops_{data}" for data in SMALL)]


def test_there_are_configs():
    names = {path.stem for path in (CONFIGS / "baselines").glob("*.py")}
    assert names == {f"{method}_{base}" for method in METHODS for base in BASES} | {"alone_mbv2_flops_fashion"}


@pytest.fixture(scope="module")
def algorithms(build_algorithm):
    return {base: build_algorithm(f"pss_{base}") for base in BASES}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("method", METHODS)
def test_differs_from_the_method_in_the_sampler_only(method, base):
    baseline = load_file(str(CONFIGS / "baselines" / f"{method}_{base}.py"), None, "none", "x")
    pss = load_file(str(CONFIGS / "pss" / f"pss_{base}.py"), None, "none", "x")
    # MutualNet trains its narrowest subnet at any resolution, too.
    own = dict(smallest_resolution="any") if method == "mutualnet" else {}
    assert dict(baseline.default_hooks.subnet_sampler) == dict(type="BaselineSamplerHook", method=method, **own)
    largest = max(pss.model.architecture.resolutions)
    if method == "usnet":
        assert baseline.model.architecture.resolutions == [largest]
        baseline.model.architecture.resolutions = pss.model.architecture.resolutions
    baseline.default_hooks = pss.default_hooks
    assert baseline.to_dict() == pss.to_dict()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("method", METHODS)
def test_sampler_and_targets(algorithms, build_algorithm, method, base):
    config = load_file(str(CONFIGS / "baselines" / f"{method}_{base}.py"), None, "none", "x")
    resolutions = config.model.architecture.resolutions
    algorithm = algorithms[base]
    if method == "usnet":
        algorithm = build_algorithm(f"pss_{base}", **{"architecture.resolutions": list(resolutions)})
    assert isinstance(algorithm, PSS)
    hook = HOOKS.build(config.default_hooks.subnet_sampler)
    assert isinstance(hook, BaselineSamplerHook)
    sampler = hook.build_sampler(algorithm.costs, algorithm.constraints, seed=0)
    assert all(sampler.draw().subnet["resolution"] in resolutions for _ in range(20))
    candidates = sampler.candidates(config.test_cfg.top_k)
    (constraint,) = algorithm.constraints
    reached = [target for _, target in candidates]
    assert all(1 <= len(pairs) <= config.test_cfg.top_k for pairs in candidates.values())
    if method == "usnet":  # without lower resolutions the small targets are out of reach
        assert reached[0] > constraint.first and reached[-1] == constraint.last
    else:
        assert tuple(reached) == constraint.targets
