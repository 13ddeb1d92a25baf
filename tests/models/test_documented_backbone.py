"""The backbone of docs/backbone.md, as it is printed there."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pss_razor.core import PrioritizedSubnetSampler, Subnet
from pss_razor.registry import MODELS
from pss_razor.static import trace_static

from mmcls.structures import ClsDataSample
from mmengine.optim import build_optim_wrapper

DOCUMENT = Path(__file__).parents[2] / "docs" / "backbone.md"


@pytest.fixture
def algorithm(build_algorithm):
    code = re.search(r"```python\n(from torch.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]
    exec(compile(code, str(DOCUMENT), "exec"), {"__name__": "documented_backbone"})
    head = dict(_delete_=True, type="SlicedLinearClsHead", num_classes=10, in_channels=128)
    backbone = dict(_delete_=True, type="MyBackbone")
    try:
        yield build_algorithm(
            "pss_mbv2_flops_digits",
            **{
                "architecture.resolutions": [24, 32],
                "architecture.backbone": backbone,
                "architecture.head": head,
                "constraints": [dict(metric="flops", first=1, last=7, step=1)],
            },
        )
    finally:
        MODELS._module_dict.pop("MyBackbone")


def test_costs_are_those_of_the_running_network(algorithm):
    space = algorithm.space
    assert space.names == ("stage0", "stage1", "stage2", "resolution")
    images = torch.zeros(1, 3, 32, 32)
    algorithm.eval()
    for subnet in (
        space.largest,
        space.smallest,
        Subnet({"stage0": 24, "stage1": 40, "stage2": 104, "resolution": 24}),
    ):
        with algorithm.mutator.active(subnet), FlopCounterMode(display=False) as counter, torch.no_grad():
            algorithm(images)
        side = subnet["resolution"] // 8
        pooling = subnet["stage2"] * side * side
        expected = (counter.get_total_flops() // 2 + pooling) * 1e-6
        assert algorithm.costs["flops"](space.encode([subnet]))[0] == pytest.approx(expected, rel=1e-12)
    assert [block.block_type for block in algorithm.cost_graph.blocks] == ["Conv2d", "MyBlock"] * 3 + ["Linear"]


def test_trains_and_exports(algorithm, load_config):
    optim_wrapper = build_optim_wrapper(algorithm, load_config("pss_mbv2_flops_digits").optim_wrapper)
    sampler = PrioritizedSubnetSampler(algorithm.costs, algorithm.constraints, pool_size=3)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (16, 3, 32, 32), generator=generator, dtype=torch.uint8)
    data = dict(inputs=inputs, data_samples=[ClsDataSample().set_gt_label(i % 10) for i in range(16)])
    algorithm.train()
    losses = []
    for _ in range(8):
        draw = sampler.draw(p_explore=0.5, temperature=1.0)
        algorithm.sampled_subnet = draw.subnet
        logs = algorithm.train_step(data, optim_wrapper)
        sampler.update(draw, float(logs["score"]))
        losses.append(float(logs["largest_ce"]))
    assert losses[-1] < losses[0]

    algorithm.eval()
    subnet = Subnet({"stage0": 16, "stage1": 40, "stage2": 72, "resolution": 32})
    with algorithm.mutator.active(subnet), torch.no_grad():
        images = inputs.float()
        expected = algorithm(images)
        architecture = algorithm.architecture
        net = trace_static(torch.nn.Sequential(architecture.backbone, architecture.neck, architecture.head), 32)
        torch.testing.assert_close(net(images), expected, rtol=1e-5, atol=1e-5)
    params = algorithm.costs["params"](algorithm.space.encode([subnet]))[0]
    assert net.num_parameters == pytest.approx(params * 1e6)
