"""Parts of converted networks, and that latencies of parts add up to the whole network's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pss_razor.conversion import convert
from pss_razor.core import ConfigError
from pss_razor.estimators import LatencyTable, latency_cost
from pss_razor.estimators.latency.interpolation import choose_subset
from pss_razor.estimators.latency.measure import find_geometries, static_block


def count_macs(network, *inputs):
    """Multiply-accumulates, by torch's counter."""
    meta = copy.deepcopy(network).to("meta").requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta(*(own.to("meta") for own in inputs))
    return counter.get_total_flops() // 2


def count_macs_of(supernet, geometries):
    """A table whose latencies are the parts' multiply-accumulates: a measuring function without noise that adds up."""
    places = find_geometries(supernet.graph, geometries)
    return {
        geometry: float(count_macs(*static_block(supernet, supernet.active, *place, geometry, "cpu", 1)))
        for geometry, place in places.items()
    }


def random_subnets(space, count):
    generator = np.random.default_rng(0)
    drawn = [space.decode(generator.integers(np.array(space.shape))) for _ in range(count)]
    return [space.smallest, space.largest, *drawn]


def check_sums(model, side, interpolate=False, **options):
    """The estimator's latency of whole subnets is the number of multiply-accumulates of the static network, exactly."""
    supernet = convert(model.eval(), torch.randn(2, 3, side, side), **options)
    graph = supernet.graph
    geometries = choose_subset(graph, 1) if interpolate else set(graph.geometries)
    assert interpolate == (len(geometries) < len(graph.geometries))
    table = LatencyTable(count_macs_of(supernet, geometries), "cpu", interpolate=interpolate)
    cost = latency_cost(table, graph)
    for subnet in random_subnets(supernet.space, 8):
        size = subnet.get("resolution", side)
        expected = count_macs(supernet.static(subnet), torch.empty(1, 3, size, size))
        assert cost(supernet.space.encode([subnet]))[0] == pytest.approx(expected, rel=1e-9)
    return supernet


class Block(nn.Module):
    def __init__(self, channels, inner):
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner)
        self.second = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x):
        return x + self.second(F.relu(self.norm(self.first(x))))


class Residuals(nn.Module):
    """A stem, a run of four blocks of which two can be skipped, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(*[Block(16, 24) for _ in range(4)])
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean([2, 3]))


class Branches(nn.Module):
    """Concatenations: of the stem and two convs, read by a norm and convs; and one that the classifier reads."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.a, self.b = nn.Conv2d(16, 24, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.c, self.d = nn.BatchNorm2d(56), nn.Conv2d(56, 16, 3), nn.Conv2d(56, 24, 1)
        self.head = nn.Linear(40, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.norm(torch.cat([self.a(x), x, self.b(x)], 1)).relu()
        c, d = self.c(x).mean([2, 3]), self.d(x).mean([2, 3])
        return self.head(torch.cat([c, d], 1))


class Gate(nn.Module):
    """A part of two inputs: what is gated, and the gate."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.last, self.head = nn.Conv2d(16, 16, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x * self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        return self.head(self.last(x).mean([2, 3]))


class TestSums:
    """With a measuring function that adds up, latencies are those of whole static networks."""

    def test_blocks_that_can_be_skipped_and_resolutions(self):
        supernet = check_sums(Residuals(), 12, resolutions=[8, 12])
        assert supernet.space.shape[-2:] == (3, 2)  # depth, resolution

    def test_concatenations(self):
        supernet = check_sums(Branches(), 8, resolutions=[6, 8])
        assert any(part.concatenated for part in supernet.graph.blocks)

    def test_several_inputs(self):
        check_sums(Gate(), 8)

    def test_interpolated_tables(self):
        """Multiply-accumulates of a conv are linear in each of its two widths and in the area."""
        model = nn.Sequential(
            nn.Conv2d(3, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(64, 5),
        )  # fmt: skip
        check_sums(model, 12, interpolate=True, resolutions=[4, 8, 12])

    @pytest.mark.parametrize(
        "name",
        [
            "mobilenet_v3_small",
            pytest.param("squeezenet1_1", marks=pytest.mark.slow),
            pytest.param("googlenet", marks=pytest.mark.slow),
        ],
    )
    @pytest.mark.filterwarnings("ignore:The default weight initialization")
    def test_torchvision(self, name):
        options = dict(width_mult=0.25) if name.startswith("mobilenet") else {}
        model = torchvision.models.get_model(name, weights=None, **options)
        check_sums(model, 64, width_range=(0.75, 1.0), divisor=16 if options else 32)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "side"),
        [
            *[(name, 64) for name in ("convnext_tiny", "densenet121", "efficientnet_b0", "regnet_y_400mf", "resnet50")],
            *[("shufflenet_v2_x0_5", 64), ("swin_v2_t", 64), ("inception_v3", 128), ("maxvit_t", 224)],
        ],
    )
    @pytest.mark.filterwarnings("ignore:The default weight initialization")
    def test_every_node_is_in_one_part(self, name, side):
        """Of one subnet, without a table: their parts are many."""
        model = torchvision.models.get_model(name, weights=None).eval()
        supernet = convert(model, torch.randn(2, 3, side, side))
        (subnet,) = random_subnets(supernet.space, 1)[2:]
        row = supernet.space.encode([subnet])[0]
        total = 0
        for part in supernet.graph.blocks:
            position = tuple(row[supernet.space.position(group)] for group in part.groups(supernet.space))
            if part.geometries(supernet.space)[position] is not None:
                network, inputs = supernet.static_part(part.name, subnet)
                total += count_macs(network.eval(), *inputs)
        assert total == count_macs(supernet.static(subnet).eval(), torch.empty(1, 3, side, side))


class TestParts:
    def test_residual_blocks_and_repeated_modules_are_one(self):
        supernet = convert(torchvision.models.resnet18().eval(), torch.randn(2, 3, 32, 32))
        parts = {part.name: part for part in supernet.graph.blocks}
        names = [name for name in parts if name.startswith("layer")]
        blocks = [f"layer{stage}_{block}_conv1" for stage in (1, 2, 3, 4) for block in (0, 1)]
        assert names == blocks and list(parts) == ["conv1", *blocks, "avgpool", "fc"]
        # Stage 1 has a block that can be skipped.
        assert [name for name, part in parts.items() if part.runs is not None] == ["layer1_1_conv1"]
        # The blocks of one shape have one kind, so that a geometry is measured once, wherever it is.
        assert parts["layer1_0_conv1"].kinds == parts["layer2_1_conv1"].kinds
        assert parts["layer2_0_conv1"].kinds != parts["layer2_1_conv1"].kinds

    def test_what_has_too_many_sizes_is_divided(self):
        supernet = convert(torchvision.models.resnet50().eval(), torch.randn(2, 3, 32, 32))
        assert all(part.geometries(supernet.space).size <= 50_000 for part in supernet.graph.blocks)
        parts = [part.name for part in supernet.graph.blocks if part.name.startswith("layer4_1")]
        assert parts == ["layer4_1_conv1", "layer4_1_conv2", "layer4_1_conv3"]

    def test_a_part_computes_what_the_network_does(self):
        torch.manual_seed(0)
        model = torchvision.models.resnet18().eval()
        supernet = convert(model, torch.randn(2, 3, 32, 32))
        part, (features,) = supernet.static_part("layer2_0_conv1", supernet.space.largest, batch=3)
        assert features.shape == (3, 64, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(part.eval()(features.clone()), model.layer2[0](features.clone()))
        subnet = supernet.space.smallest
        part, (features,) = supernet.static_part("layer2_0_conv1", subnet)
        assert features.shape[1] == subnet["conv1"] and part(features).shape[1] == subnet["layer2.0.conv2"]
        assert supernet.active_subnet == supernet.space.largest

    def test_kinds_do_not_depend_on_names_and_widths(self):
        """Tables of one network serve another one that is made of the same blocks."""
        found = []
        for model in (torchvision.models.resnet18(), torchvision.models.resnet34(num_classes=10)):
            graph = convert(nn.Sequential(model).eval(), torch.randn(2, 3, 32, 32)).graph
            found.append({kind for part in graph.blocks for kind in part.kinds if kind.startswith("BasicBlock")})
        assert found[0] == found[1] and len(found[0]) == 2

    def test_copies_have_parts_of_their_own(self):
        supernet = convert(Residuals().eval(), torch.randn(2, 3, 8, 8))
        twin = copy.deepcopy(supernet)
        with torch.no_grad():
            twin.network.get_parameter("stem.weight").zero_()
        for own, is_zero in ((supernet, False), (twin, True)):
            part, _ = own.static_part("stem", own.space.largest)
            assert bool((part.get_parameter("stem.weight") == 0).all()) == is_zero


def test_a_table_of_another_network():
    supernet = convert(Residuals().eval(), torch.randn(2, 3, 8, 8))
    table = LatencyTable(dict.fromkeys(supernet.graph.geometries, 1.0), "cpu")
    assert latency_cost(table, supernet.graph)(supernet.space.encode([supernet.space.largest]))[0] == 7.0
    other = convert(Gate().eval(), torch.randn(2, 3, 8, 8))
    with pytest.raises(ConfigError, match=r"lacks \d+ blocks of this search space, the first is block\(block_type="):
        latency_cost(table, other.graph)
