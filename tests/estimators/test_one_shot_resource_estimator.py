"""Resources of one-shot supernets: MMRazor's own counts, for all subnets at once."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pss_razor.core import ConfigError
from pss_razor.engine.launch import load_config
from pss_razor.registry import MODELS, TASK_UTILS

from mmrazor.registry import sub_model
from mmrazor.structures import export_fix_subnet

SPOS = Path(__file__).resolve().parents[2] / "configs" / "nas" / "spos"


def load_search(kind):
    return load_config(str(SPOS / f"spos_evolution_search_{kind}_8xb2048_in1k.py"), None, "none", "unused")


def read_subnet(file):
    return {place: choice["chosen"] for place, choice in yaml.safe_load((SPOS / file).read_text()).items()}


@pytest.fixture(scope="module", params=["shufflenetv2", "mobilenet_proxyless_gpu"])
def supernet(request):
    """Name, algorithm and costs of a supernet of SPOS."""
    config = load_search(request.param)
    algorithm = MODELS.build(config.model)
    costs = TASK_UTILS.build(config.train_cfg.estimator_cfg).build_costs(algorithm.architecture, algorithm.mutator)
    return request.param, algorithm, costs


def test_a_subnet_counts_as_mmrazor_counts_it(supernet):
    _, algorithm, costs = supernet
    space = algorithm.mutator.space
    indices = np.random.default_rng(0).integers(space.shape, size=(1, len(space)))
    with algorithm.mutator.active(space.decode(indices[0])):
        _, network = export_fix_subnet(algorithm.architecture, slice_weight=True)
    expected = TASK_UTILS.build(dict(type="ResourceEstimator")).estimate(model=network)
    for metric in ("flops", "params"):
        # MMRazor rounds to three decimals
        assert costs[metric](indices)[0] == pytest.approx(expected[metric], abs=6e-4)


def test_the_published_figures(supernet):
    """MMRazor reports 0.33 G and 3.35 M for ShuffleNetV2, 0.49 G and 5.94 M for the MobileNet."""
    name, algorithm, costs = supernet
    files, flops, params = {
        "shufflenetv2": (["shufflenetv2_330m_mmrazor.yaml", "shufflenetv2_330m_paper.yaml"], 0.33, 3.35),
        "mobilenet_proxyless_gpu": (["mobilenet_proxyless_gpu_490m.yaml"], 0.49, 5.94),
    }[name]
    indices = algorithm.mutator.space.encode([read_subnet(file) for file in files])
    assert [round(value / 1000, 2) for value in costs["flops"](indices)] == [flops] * len(files)
    assert [round(value, 2) for value in costs["params"](indices)] == [params] * len(files)


# Of backbone.layers.0.0 to 3.3; MMRazor's as its repository has them.
SHUFFLENET_CHOICES = {
    "mmrazor": ("7373 x553 35353x57 735x", 3_353_592, 327.54432),
    "paper": ("33x5 5533 73755373 75x7", 3_345_576, 329.8842),
}


@pytest.mark.parametrize("origin", SHUFFLENET_CHOICES)
def test_which_shufflenet_is_which(origin, supernet):
    name, algorithm, costs = supernet
    if name != "shufflenetv2":
        return
    letters, params, flops = SHUFFLENET_CHOICES[origin]
    subnet = read_subnet(f"shufflenetv2_330m_{origin}.yaml")
    kinds = {"3": "3x3", "5": "5x5", "7": "7x7", "x": "xception"}
    assert subnet == {
        f"backbone.layers.{stage}.{place}": f"shuffle_{kinds[letter]}"
        for stage, row in enumerate(letters.split())
        for place, letter in enumerate(row)
    }
    network = sub_model(load_search(name).model.architecture, {p: {"chosen": op} for p, op in subnet.items()})
    assert sum(parameter.numel() for parameter in network.parameters()) == params
    indices = algorithm.mutator.space.encode([subnet])
    assert costs["params"](indices)[0] * 1e6 == pytest.approx(params, abs=0.5)
    assert costs["flops"](indices)[0] == pytest.approx(flops, abs=1e-3)


def test_the_active_subnet_stays(supernet):
    _, algorithm, costs = supernet
    assert algorithm.mutator.active_subnet == algorithm.mutator.space.largest
    estimator = TASK_UTILS.build(dict(type="OneShotResourceEstimator", input_size=224))
    indices = algorithm.mutator.space.encode([algorithm.mutator.space.largest])
    assert estimator.estimate(algorithm) == {metric: cost(indices)[0] for metric, cost in costs.items()}


def test_widths_are_refused(imagenet_mbv2):
    estimator = TASK_UTILS.build(dict(type="OneShotResourceEstimator", input_size=224))
    with pytest.raises(ConfigError, match="is no one-shot op"):
        estimator.build_costs(imagenet_mbv2.architecture, imagenet_mbv2.mutator)
