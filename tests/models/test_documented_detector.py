"""The detector of docs/detector.md, as it is printed there, on a small supernet with random weights."""

import re
from pathlib import Path

import pytest
import torch

from pss_razor.core import Subnet
from pss_razor.deploy import save_subnet, write_manifest
from pss_razor.engine.launch import load_config
from pss_razor.export.exporter import WithoutResize
from pss_razor.models import build_supernet
from pss_razor.static import trace_static

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "detector.md"
CONFIG = ROOT / "tests" / "tiny" / "tiny_supernet.py"
STAGES = (1, 2, 4, 7)


@pytest.fixture(scope="module")
def code():
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 2
    return [compile(block, str(DOCUMENT), "exec") for block in blocks]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A supernet, its mutator, a subnet of it, and the folder that the subnet is exported to."""
    config = load_config(str(CONFIG), None, "none", None)
    supernet, mutator, _ = build_supernet(config)
    generator = torch.Generator().manual_seed(0)
    for module in supernet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that the exported weights must bring along
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    space = mutator.space
    indices = [len(values) // 2 for values in (dimension.values for dimension in space.dimensions)]
    subnet = Subnet({d.name: d.values[index] for d, index in zip(space.dimensions, indices, strict=True)})
    assert subnet not in (space.largest, space.smallest)
    folder = tmp_path_factory.mktemp("detector")
    with mutator.active(subnet):
        files = save_subnet(trace_static(WithoutResize(supernet), subnet["resolution"]), folder / "flops_0.5")
    entry = dict(
        **dict(name="flops_0.5", metric="flops", target=0.5, resource=0.5, accuracy=None, parity_error=0.0),
        **space.to_record(subnet),
        files={kind: f"flops_0.5/{file}" for kind, file in files.items()},
    )
    write_manifest(folder, dict(format=1, created="", versions={}, preprocessing={}, subnets=[entry]))
    return supernet, mutator, subnet, folder


@pytest.fixture
def documented(code, exported):
    """The names that the document defines."""
    names = {
        "__name__": "documented_detector",
        "CONFIG": str(CONFIG),
        "EXPORT_DIR": str(exported[-1]),
        "NAME": "flops_0.5",
    }
    for block in code:
        exec(block, names)
    return names


def test_feature_maps_are_the_supernets_of_active_widths(exported, documented):
    supernet, mutator, subnet, folder = exported
    backbone = documented["load_backbone"](str(CONFIG), str(folder), "flops_0.5", STAGES)
    images = torch.randn(2, 3, 64, 96)
    before = supernet.backbone.out_indices
    supernet.backbone.out_indices = STAGES
    try:
        with mutator.active(subnet), torch.no_grad():
            expected = supernet.backbone(images)
            maps = backbone(images)
    finally:
        supernet.backbone.out_indices = before
    widths = [subnet["stage2"], subnet["stage3"], subnet["stage5"], 1280]
    assert [feature.shape[1] for feature in expected] == widths
    assert [tuple(feature.shape[2:]) for feature in maps] == [(64 // s, 96 // s) for s in (4, 8, 16, 32)]
    for feature, reference in zip(maps, expected, strict=True):
        assert (feature - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert not any(hasattr(module, "to_static_op") for module in backbone.modules())


def test_detector_trains_and_detects(documented, exported):
    detector = documented["detector"]
    subnet = exported[2]
    assert detector.backbone.pyramid.inner_blocks[0][0].in_channels == subnet["stage2"]
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01)
    image = torch.rand(3, 64, 64)
    target = dict(boxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]), labels=torch.tensor([3]))
    before = detector.backbone.backbone.conv1.conv.weight.clone()
    losses = detector.train()([image], [target])
    sum(losses.values()).backward()
    optimizer.step()
    assert not torch.equal(before, detector.backbone.backbone.conv1.conv.weight)
    assert set(detector.eval()([image])[0]) == {"boxes", "scores", "labels"}
