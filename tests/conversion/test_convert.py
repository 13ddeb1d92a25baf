"""Networks as supernets: torchvision's, and one made for every rule."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pss_razor.conversion import convert
from pss_razor.core import ConfigError
from pss_razor.core.cost_graph import CostGraph

ROOT = Path(__file__).resolve().parents[2]
# One of every family; the others differ in sizes.
FAMILIES = {
    "alexnet": 96,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnet50": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 64,
}


def random_subnets(space, count, seed=0):
    generator = np.random.default_rng(seed)
    return [space.decode(generator.integers(np.array(space.shape))) for _ in range(count)]


def check(model, images, count=3, **options):
    """The largest subnet is the network, and random ones are the plain networks that their costs are of."""
    model.eval()
    with torch.no_grad():
        expected = model(images)
    supernet = convert(model, images, **options).eval()
    space = supernet.space
    with torch.no_grad():
        assert torch.equal(supernet(images), expected)
    for subnet in [space.smallest, *random_subnets(space, count)]:
        static = supernet.static(subnet).eval()
        size = subnet.get("resolution", images.shape[-1])
        own = images if size == images.shape[-1] else F.interpolate(
            images, (size, size), mode="bilinear", align_corners=True
        )  # fmt: skip
        with torch.no_grad(), supernet.active(subnet):
            logits = supernet(images)
        with torch.no_grad():
            assert (static(own) - logits).abs().max() <= 1e-5 * logits.abs().max()
        row = space.encode([subnet])
        params = sum(parameter.numel() for parameter in static.parameters())
        assert supernet.costs["params"](row)[0] == pytest.approx(params * 1e-6, rel=1e-12)
        image = torch.empty(1, *images.shape[1:2], size, size, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            copy.deepcopy(static).to("meta")(image)
        # The counter knows nothing of poolings.
        pools = CostGraph(space, tuple(layer for layer in supernet.graph.layers if layer.kind == "pool"), ()).flops(row)
        macs = counter.get_total_flops() // 2
        assert supernet.costs["flops"](row)[0] - pools[0] == pytest.approx(macs * 1e-6, rel=1e-9)
    return supernet


@pytest.mark.parametrize(
    "name",
    [n if n in ("resnet18", "mobilenet_v3_small") else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_torchvision(name):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None)
    supernet = check(model, torch.randn(2, 3, FAMILIES[name], FAMILIES[name]))
    low, high = supernet.costs["flops"](supernet.space.encode([supernet.space.smallest, supernet.space.largest]))
    assert low <= 0.6 * high and supernet.searched_share > 0.6


@pytest.mark.slow
def test_vision_transformer():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    supernet = check(model, torch.randn(2, 3, 32, 32))
    assert sum(dimension.kind == "value" for dimension in supernet.space.dimensions) == 1  # eight halves of blocks
    assert [d.name for d in supernet.space.dimensions if d.kind == "channels"] == [
        f"encoder.layers.encoder_layer_{i}.mlp.0" for i in range(4)
    ]


# A network for every rule


class Net(nn.Module):
    """A conv, then what a test says, then a classifier."""

    def __init__(self, body, channels=16, out=None):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.body = body
        self.head = nn.Linear(out or channels, 5)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean([2, 3]))


class Concatenation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 24, 1), nn.Conv2d(16, 8, 1)
        self.norm, self.last = nn.BatchNorm2d(48), nn.Conv2d(48, 16, 3, padding=1)

    def forward(self, x):
        return self.last(self.norm(torch.cat([self.a(x), x, self.b(x)], 1)).relu())


class SplitAtBorders(Concatenation):
    def forward(self, x):
        first, second = torch.cat([self.a(x), x, self.b(x)], 1).split([40, 8], 1)
        return self.last(torch.cat([second, first], 1))


class SplitInside(Concatenation):
    def forward(self, x):
        first, second, third = torch.cat([self.a(x), x, self.b(x)], 1).chunk(3, 1)
        return self.last(torch.cat([second, first, third], 1))


class SqueezeExcitation(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        return x * self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))).sigmoid()


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(16, 1, 1))
        self.register_buffer("shift", torch.rand(1, 16, 1, 1))

    def forward(self, x):
        return x * self.scale + self.shift


class SpatialMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.mask = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x):
        return x * self.mask(x).sigmoid()


class Unknown(nn.Module):
    def forward(self, x):
        return x + torch.roll(x, 1, 1)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        return self.conv(self.conv(x).relu())


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        y = self.second(F.gelu(self.first(self.norm(x.permute(0, 2, 3, 1)))))
        return x + y.permute(0, 3, 1, 2)


class LooksAtItsWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        return self.conv(x.to(self.conv.weight.dtype))


class Multiplier(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(16, 32, 3, padding=1, groups=16), nn.Conv2d(32, 16, 1))


RULES = {
    "plain": (lambda: nn.Sequential(nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1)), 3),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(16, 16, 3, groups=16), nn.BatchNorm2d(16)), 1),
    "grouped": (lambda: nn.Conv2d(16, 16, 3, groups=2), 1),
    "concatenation": (Concatenation, 3),
    "split": (SplitAtBorders, 3),
    "split inside": (SplitInside, 1),
    "squeeze and excitation": (SqueezeExcitation, 2),
    "scale": (Scale, 1),
    "spatial mask": (SpatialMask, 1),
    "unknown": (Unknown, 0),
    "twice": (Twice, 0),
    "channels last": (ChannelsLast, 2),
    "group norm": (lambda: nn.Sequential(nn.GroupNorm(2, 16), nn.ReLU()), 1),
    "instance norm": (lambda: nn.InstanceNorm2d(16), 0),
    "depth multiplier": (Multiplier, 1),
    "looks at its weight": (LooksAtItsWeight, 2),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    """How many widths are searched, beside those of a layer that always is: what is not understood is left."""
    torch.manual_seed(0)
    make, widths = RULES[rule]
    body = nn.Sequential(make(), nn.Conv2d(16, 32, 1), nn.ReLU())
    supernet = check(Net(body, out=32), torch.randn(2, 3, 8, 8), depth=False)
    assert len(supernet.space) == widths + 1, supernet.summary()


def test_what_is_not_understood_is_said():
    body = nn.Sequential(Unknown(), nn.Conv2d(16, 32, 1), nn.ReLU())
    summary = convert(Net(body, out=32), torch.randn(2, 3, 8, 8)).summary()
    assert "roll" in summary and "there is no rule for it (stem)" in summary
    share = 16 * 32 * 64 + 32 * 5
    assert f"searched: {share / (share + 3 * 16 * 9 * 64):.1%}" in summary


def test_a_flatten_repeats_channels():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 9, 24),
        nn.ReLU(),
        nn.Linear(24, 4),
    )
    supernet = check(model, torch.randn(2, 3, 8, 8))
    assert supernet.space.shape == (2, 2)


class Residual(nn.Module):
    def __init__(self, relu_after):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.relu_after = relu_after

    def forward(self, x):
        y = x + self.norm(self.conv(x))
        return y.relu() if self.relu_after else y


class TestDepth:
    @pytest.mark.parametrize("relu_after", [True, False])
    def test_the_last_blocks_are_skipped(self, relu_after):
        torch.manual_seed(0)
        body = nn.Sequential(nn.ReLU(), *[Residual(relu_after) for _ in range(4)])
        model, images = Net(body), torch.randn(2, 3, 8, 8)
        supernet = check(model, images)
        assert supernet.space.dimensions[-1].values == (2, 3, 4)
        for depth in (2, 3):
            with supernet.active({**supernet.space.largest, "depth0": depth}), torch.no_grad():
                shorter = copy.deepcopy(model)
                shorter.body = shorter.body[: 1 + depth]
                assert torch.equal(supernet(images), shorter(images))

    def test_a_relu_that_the_input_has_not_passed_is_no_block(self):
        body = nn.Sequential(nn.Tanh(), *[Residual(True) for _ in range(2)])
        supernet = convert(Net(body), torch.randn(2, 3, 8, 8))
        assert all(dimension.kind == "channels" for dimension in supernet.space.dimensions)

    def test_it_can_be_left_out(self):
        body = nn.Sequential(nn.ReLU(), *[Residual(True) for _ in range(4)])
        supernet = convert(Net(body), torch.randn(2, 3, 8, 8), depth=False)
        assert [dimension.kind for dimension in supernet.space.dimensions] == ["channels"]


class Bottleneck(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1))

    def forward(self, x):
        return x + super().forward(x)


class TestEqualCombinations:
    """Widths that only skipped blocks have make no other network."""

    @pytest.fixture(scope="class")
    def supernet(self):
        return convert(Net(nn.Sequential(*[Bottleneck() for _ in range(4)])), torch.randn(2, 3, 8, 8))

    def test_one_subnet_is_one_network(self, supernet):
        """Each network by the shapes of its tensors, which is all that the choices decide here."""
        space = supernet.space
        subnets = list({space.decode(row): None for row in space.enumerate()})
        shapes = {
            tuple((name, tuple(t.shape)) for name, t in supernet.static(subnet).state_dict().items())
            for subnet in subnets
        }
        # Stem, then two, three or four blocks, each with two widths.
        assert len(shapes) == len(subnets) == 2 * (2**2 + 2**3 + 2**4)
        assert space.size == 2 * 3 * 2**4

    def test_the_ends_are_among_them(self, supernet):
        space = supernet.space
        for subnet in (space.smallest, space.largest):
            assert space.decode(space.encode([subnet])[0]) == subnet

    def test_a_width_that_blocks_share_is_used_from_the_first_of_them(self):
        class Tied(nn.Module):
            """Its blocks multiply by one parameter each, of the width that only they have."""

            def __init__(self):
                super().__init__()
                self.first, self.second = Bottleneck(), Bottleneck()

            def forward(self, x):
                return self.second(self.first(x))

        space = convert(Net(nn.Sequential(Tied(), Tied())), torch.randn(2, 3, 8, 8)).space
        used_from = {dimension.name: dimension.used_from for dimension in space.dimensions}
        assert used_from == {
            "stem": None, "body.0.first.0": None, "body.0.second.0": None, "body.1.first.0": ("depth0", 3),
            "body.1.second.0": ("depth0", 4), "depth0": None,
        }  # fmt: skip


class TestSupernet:
    @pytest.fixture(scope="class")
    def model(self):
        torch.manual_seed(0)
        return torchvision.models.resnet18(num_classes=10).eval()

    @pytest.fixture(scope="class")
    def images(self):
        return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    @pytest.fixture
    def supernet(self, model, images):
        return convert(model, images, resolutions=[32, 48, 64])

    def test_names_of_the_weights_stay(self, model, supernet):
        own = {name.removeprefix("network."): tensor for name, tensor in supernet.state_dict().items()}
        assert own.keys() == model.state_dict().keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in model.state_dict().items())

    def test_the_network_itself_is_left_alone(self, model, images):
        before = copy.deepcopy(model.state_dict())
        convert(model, images, sort="l1")
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert type(model.layer1[0].conv1) is nn.Conv2d

    def test_resolutions(self, model, images):
        supernet = check(model, images, resolutions=[32, 48, 64])
        assert supernet.space.dimensions[-1].values == (32, 48, 64)

    @pytest.mark.parametrize("sort", ["l1", "bn"])
    def test_sorting_changes_the_order_alone(self, model, images, sort):
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(0))
        supernet = convert(model, images, sort=sort).eval()
        with torch.no_grad():
            expected = model(images)
            assert (supernet(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
        layer = supernet.network.get_submodule("layer4.0")
        importance = {"l1": layer.conv1.weight.abs().sum((1, 2, 3)), "bn": layer.bn1.weight.abs()}[sort]
        assert (importance.diff() <= 1e-6).all()
        assert not torch.equal(layer.conv1.weight, model.layer4[0].conv1.weight)

    def test_a_step_reaches_the_active_part_alone(self, supernet, images):
        subnet = supernet.space.smallest
        supernet.train()
        with supernet.active(subnet):
            supernet(images).sum().backward()
        conv = supernet.network.get_submodule("layer2.0.conv1")
        assert conv.weight.grad[: subnet["layer2.0.conv1"], : subnet["conv1"]].abs().sum() > 0
        assert (
            not conv.weight.grad[subnet["layer2.0.conv1"] :].any() and not conv.weight.grad[:, subnet["conv1"] :].any()
        )
        norm = supernet.network.get_submodule("layer2.0.bn1")
        assert (
            norm.running_mean[: subnet["layer2.0.conv1"]].any()
            and not norm.running_mean[subnet["layer2.0.conv1"] :].any()
        )

    def test_statistics_of_a_concatenation(self):
        torch.manual_seed(0)
        supernet = convert(Net(Concatenation()), torch.randn(4, 3, 8, 8)).train()
        subnet = supernet.space.smallest
        assert subnet["body.a"] == 16 and subnet["stem"] == 8
        with supernet.active(subnet):
            supernet(torch.randn(4, 3, 8, 8))
        moved = supernet.network.body.norm.running_mean != 0
        expected = torch.zeros(48, dtype=torch.bool)
        expected[0:16] = expected[24:32] = expected[40:48] = True
        assert torch.equal(moved, expected)

    def test_a_copy_is_a_supernet_of_its_own(self, supernet, images):
        twin = copy.deepcopy(supernet)
        twin.activate(twin.space.smallest)
        with torch.no_grad():
            assert torch.equal(supernet.eval()(images), copy.deepcopy(supernet)(images))
            assert not torch.equal(twin.eval()(images), supernet(images))

    def test_a_subnet_outside_of_the_space(self, supernet):
        with pytest.raises(ConfigError, match="is not in the search space"):
            supernet.activate({**supernet.space.largest, "conv1": 17})

    def test_dropout_depends_on_the_mode(self):
        torch.manual_seed(0)

        class Functional(nn.Module):
            def forward(self, x):
                return F.dropout(x, 0.5, self.training)

        supernet = convert(Net(Functional()), torch.randn(2, 3, 8, 8))
        images = torch.randn(2, 3, 8, 8)
        assert not torch.equal(supernet.train()(images), supernet(images))
        assert torch.equal(supernet.eval()(images), supernet(images))


class TestErrors:
    def test_what_depends_on_values_names_the_line(self):
        class Branch(nn.Module):
            def forward(self, x):
                if x.sum() > 0:
                    return x
                return -x

        with pytest.raises(ConfigError, match=r"cannot be traced by torch.fx \(.*test_convert.py, line \d+\)"):
            convert(Net(Branch()), torch.randn(2, 3, 8, 8))

    def test_nothing_to_search(self):
        with pytest.raises(ConfigError, match="nothing to search"):
            convert(nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.Linear(5 * 64, 2)), torch.randn(2, 3, 8, 8))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"width_range": (0.0, 1.0)}, "width_range"),
            ({"width_range": (0.9, 0.5)}, "width_range"),
            ({"divisor": 0}, "divisor = 0"),
            ({"sort": "size"}, "sort = 'size' is not known"),
            ({"resolutions": [4, 16]}, "8 x 8 pixels; give square ones of the largest resolution, 16"),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(ConfigError, match=message):
            convert(Net(nn.ReLU()), torch.randn(2, 3, 8, 8), **options)

    def test_images_that_the_network_does_not_take(self):
        with pytest.raises(ConfigError, match=r"ResNet does not run on images of the shape \(2, 1, 32, 32\)"):
            convert(torchvision.models.resnet18(), torch.randn(2, 1, 32, 32))

    def test_an_output_that_is_no_logits(self):
        class Two(nn.Module):
            def forward(self, x):
                return x, x

        with pytest.raises(ConfigError, match="must return logits"):
            convert(nn.Sequential(nn.Conv2d(3, 16, 1), Two()), torch.randn(2, 3, 8, 8))

    def test_too_small_a_resolution(self):
        with pytest.raises(ConfigError, match="does not run on images of 2 pixels"):
            convert(Net(nn.MaxPool2d(4)), torch.randn(2, 3, 8, 8), resolutions=[2, 8])


def test_nothing_of_openmmlab_is_imported():
    code = """
import sys, torch
import pss_razor
assert "torch" in sys.modules and not any(name.startswith("pss_razor.c") for name in sys.modules)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Flatten(), torch.nn.Linear(576, 2))
supernet = pss_razor.convert(model, torch.zeros(2, 3, 8, 8))
print(supernet.summary())
assert not [name for name in sys.modules if name.partition(".")[0] in ("mmengine", "mmcv", "mmcls", "mmrazor")]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "1 dimensions" in done.stdout, done.stderr
