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


class Shuffle(nn.Module):
    """ShuffleNetV2's block: half of the channels pass, the other half is convolved, and both are interleaved."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(16, 64, 1), nn.Conv2d(16, 64, 1)
        self.convs = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(128, 16, 1)

    def forward(self, x):
        x = torch.cat([self.first(x), self.second(x)], 1)
        for conv in self.convs:
            n, c, height, width = x.size()
            x = x.view(n, 2, c // 2, height, width).transpose(1, 2).contiguous().view(n, c, height, width)
            kept, used = x.chunk(2, 1)
            x = torch.cat([kept, conv(used).relu()], 1)
        return self.last(x)


class Sequence(nn.Module):
    """Runs a module on (N, H × W, C)."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        n, c, height, width = x.shape
        y = self.body(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).reshape(n, c, height, width)


class Attention(nn.Module):
    def __init__(self, heads=4):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(16, 96), nn.Linear(32, 16)

    def split(self, x):
        n, length, c = x.shape
        return self.qkv(x).reshape(n, length, 3, self.heads, 2 * c // self.heads).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        q, k, v = self.split(x)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class BiasedAttention(Attention):
    """With products written out, a bias for every head and pair of positions, and a scale for every head."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(127, 4))
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("index", torch.arange(64)[:, None] - torch.arange(64) + 63)

    def forward(self, x):
        q, k, v = self.split(x).unbind(0)
        bias = self.table[self.index.view(-1)].view(64, 64, -1).permute(2, 0, 1)
        weights = (q @ k.transpose(-2, -1) * self.scale + bias.unsqueeze(0)).softmax(dim=-1)
        y = torch.einsum("bhqk,bhkd->bhqd", weights, v)
        return x + self.proj(y.transpose(1, 2).flatten(2))


class TalkingHeads(Attention):
    def __init__(self):
        super().__init__()
        self.talk = nn.Linear(4, 4)

    def forward(self, x):
        q, k, v = self.split(x)
        weights = self.talk((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        return x + self.proj((weights @ v).transpose(1, 2).flatten(2))


class ComputedBias(nn.Module):
    """A linear layer whose bias is put together, as BEiT's."""

    def __init__(self):
        super().__init__()
        self.linear, self.last = nn.Linear(16, 32, bias=False), nn.Linear(32, 16)
        self.bias = nn.Parameter(torch.randn(16))
        self.register_buffer("zeros", torch.zeros(16))

    def forward(self, x):
        bias = torch.cat([self.bias, self.zeros])
        return self.last(F.gelu(F.linear(x, self.linear.weight, bias)))


class GatedUnit(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(32, 16)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Ghost(nn.Module):
    """What is concatenated is added to what one conv makes."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 32, 1)
        self.last = nn.Conv2d(32, 16, 1)

    def forward(self, x):
        return self.last(torch.cat([self.a(x), self.b(x)], 1) + self.c(x))


class PartOfThem(nn.Module):
    """ReXNet's shortcut: a tensor is added to the first channels."""

    def __init__(self):
        super().__init__()
        self.wide, self.last = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)

    def forward(self, x):
        y = self.wide(x)
        return self.last(torch.cat([y[:, :16] + x, y[:, 16:]], dim=1))


class Radix(nn.Module):
    """ResNeSt: the halves of a grouped conv's channels are added, so that channels of each half go together."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(16, 32, 3, padding=1, groups=2), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        y = self.conv(x)
        return self.last(y.view(y.shape[0], 2, y.shape[1] // 2, *y.shape[2:]).sum(dim=1))


class FunctionalNorm(nn.LayerNorm):
    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2).relu()


class StandardisedConv(nn.Conv2d):
    def __init__(self):
        super().__init__(16, 16, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(16, 1, 1, 1))

    def forward(self, x):
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) * self.gain
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ResponseNorm(nn.Module):
    """ConvNeXtV2's: of each channel its norm, divided by the mean over the channels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16))

    def forward(self, x):
        norm = x.norm(p=2, dim=(2, 3), keepdim=True)
        return torch.addcmul(x, self.weight.view(1, -1, 1, 1), x * norm / (norm.mean(dim=1, keepdim=True) + 1e-6))


class DecidesOnSizes(nn.Module):
    """Windows of four positions, after padding where it is needed, as Swin has them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        n, c, height, width = x.shape
        if height % 3:
            x = F.pad(x, (0, 3 - width % 3, 0, 3 - height % 3))
        side = int(x.shape[2] / 3)
        x = x.permute(0, 2, 3, 1).view(n, side, 3, side, 3, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 9, c)
        x = self.linear(x).view(n, side, side, 3, 3, c).permute(0, 1, 3, 2, 4, 5).reshape(n, 3 * side, 3 * side, c)
        return x.permute(0, 3, 1, 2)[:, :, :height, :width]


class CannotBeTraced(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        assert isinstance(x, torch.Tensor)
        return self.conv(x)


class Stacked(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        return torch.stack([self.a(x), self.b(x)], dim=1).amax(1)


RULES = {
    "plain": (lambda: nn.Sequential(nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1)), 3),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(16, 16, 3, groups=16), nn.BatchNorm2d(16)), 1),
    "grouped": (lambda: nn.Conv2d(16, 16, 3, groups=2), 1),
    "concatenation": (Concatenation, 3),
    "split": (SplitAtBorders, 3),
    "split inside": (SplitInside, 2),
    "squeeze and excitation": (SqueezeExcitation, 2),
    "scale": (Scale, 1),
    "spatial mask": (SpatialMask, 1),
    "unknown": (Unknown, 0),
    "twice": (Twice, 1),
    "channels last": (ChannelsLast, 2),
    "group norm": (lambda: nn.Sequential(nn.GroupNorm(2, 16), nn.ReLU()), 1),
    "group norm of one group": (lambda: nn.GroupNorm(1, 16), 1),
    "instance norm": (lambda: nn.InstanceNorm2d(16), 0),
    "depth multiplier": (Multiplier, 2),
    "looks at its weight": (LooksAtItsWeight, 2),
    "shuffle": (Shuffle, 11),
    "attention": (lambda: Sequence(Attention()), 2),
    "attention of one head": (lambda: Sequence(Attention(1)), 2),
    "attention with biases": (lambda: Sequence(BiasedAttention()), 2),
    "talking heads": (lambda: Sequence(TalkingHeads()), 2),
    "computed bias": (lambda: Sequence(ComputedBias()), 3),
    "gated unit": (lambda: Sequence(GatedUnit()), 3),
    "ghost": (Ghost, 4),
    "part of them": (PartOfThem, 3),
    "radix": (Radix, 3),
    "functional norm": (lambda: FunctionalNorm(16), 1),
    "standardised conv": (StandardisedConv, 2),
    "response norm": (ResponseNorm, 1),
    "decides on sizes": (DecidesOnSizes, 2),
    "cannot be traced": (CannotBeTraced, 0),
    "stacked": (Stacked, 2),
}


def make_rule(rule):
    torch.manual_seed(0)
    return Net(nn.Sequential(RULES[rule][0](), nn.Conv2d(16, 32, 1), nn.ReLU()), out=32).eval()


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    """How many widths are searched, beside those of a layer that always is: what is not understood is left."""
    supernet = check(make_rule(rule), torch.randn(2, 3, 8, 8), depth=False)
    assert len(supernet.space) == RULES[rule][1] + 1, supernet.summary()


@pytest.mark.parametrize("rule", RULES)
def test_sorting_of_what_a_rule_cuts(rule):
    """The function stays; the first channels of the last conv, whose order is free, are the large ones."""
    model, images = make_rule(rule), torch.randn(2, 3, 8, 8)
    supernet = convert(model, images, depth=False, sort="l1").eval()
    with torch.no_grad():
        expected = model(images)
        assert (supernet(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
    sums = supernet.network.get_submodule("body.1").weight.abs().sum((1, 2, 3))
    assert (sums.diff() <= 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_onnx_of_what_a_rule_cuts(rule):
    onnxruntime = pytest.importorskip("onnxruntime")
    from pss_razor.export.onnx_export import to_onnx

    images = torch.randn(2, 3, 8, 8)
    supernet = convert(make_rule(rule), images, depth=False).eval()
    for subnet in (supernet.space.smallest, *random_subnets(supernet.space, 1)):
        static = supernet.static(subnet).eval()
        session = onnxruntime.InferenceSession(to_onnx(static, images))
        more = torch.randn(3, 3, 8, 8)
        with torch.no_grad(), supernet.active(subnet):
            expected = supernet(more)
        (logits,) = session.run(None, {"images": more.numpy()})
        assert (torch.from_numpy(logits) - expected).abs().max() <= 1e-4 * expected.abs().max()


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

    def test_a_block_whose_layer_runs_elsewhere_is_no_block(self):
        shared = Residual(False)
        body = nn.Sequential(*[Residual(False) for _ in range(3)], shared, nn.Tanh(), shared)
        supernet = check(Net(body), torch.randn(2, 3, 8, 8))
        assert supernet.space.dimensions[-1].values == (2, 3)

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


class TestTaylor:
    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
        ).eval()

    @pytest.fixture
    def batches(self):
        generator = torch.Generator().manual_seed(1)
        return [
            (torch.randn(4, 3, 8, 8, generator=generator), torch.randint(5, (4,), generator=generator))
            for _ in range(3)
        ]

    def test_channels_without_which_the_loss_changes_most_come_first(self, model, batches):
        """Against the loss with a channel a little weaker, in double precision."""
        double, scores = copy.deepcopy(model).double(), []
        for channel in range(16):
            changes = []
            for images, labels in batches:
                losses = []
                for gate in (1 - 1e-5, 1 + 1e-5):
                    weaker = copy.deepcopy(double)
                    with torch.no_grad():
                        weaker[0].weight[channel] *= gate
                        losses.append(float(F.cross_entropy(weaker(images.double()), labels)))
                changes.append((losses[1] - losses[0]) / 2e-5)
            scores.append(sum(change**2 for change in changes))
        order = np.argsort(scores)[::-1].copy()
        assert list(order) != list(range(16))
        supernet = convert(model, batches[0][0], sort="taylor", batches=batches)
        assert torch.equal(supernet.network.get_submodule("0").weight, model[0].weight[order])
        assert torch.equal(supernet.network.get_submodule("4").weight, model[4].weight[:, order])

    def test_nothing_else_changes(self, batches):
        torch.manual_seed(0)
        model = torchvision.models.resnet18(num_classes=5).requires_grad_(False).train()
        images = torch.randn(2, 3, 32, 32)
        larger = [(torch.randn(2, 3, 32, 32), torch.tensor([0, 3]))]
        with torch.no_grad():
            expected = copy.deepcopy(model).eval()(images)
            supernet = convert(model, images, sort="taylor", batches=larger)
            assert supernet.training
            statistics = supernet.network.get_submodule("bn1").running_mean
            assert torch.equal(statistics.sort().values, model.bn1.running_mean.sort().values)
            assert (supernet.eval()(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert not torch.equal(supernet.network.get_submodule("layer4.0.conv1").weight, model.layer4[0].conv1.weight)
        assert all(p.grad is None and not p.requires_grad for p in (*supernet.parameters(), *model.parameters()))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sort": "taylor"}, "needs batches .* A config has none; sort by 'l1' or 'bn' there"),
            ({"sort": "taylor", "batches": []}, "was given no batch"),
            ({"sort": "l1", "batches": [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))]}, "'taylor' alone"),
        ],
    )
    def test_errors(self, model, options, message):
        with pytest.raises(ConfigError, match=message):
            convert(model, torch.randn(2, 3, 8, 8), **options)


class TestSizes:
    """What a network decides by the sizes of its images."""

    def test_batches_of_any_size(self):
        model, images = make_rule("decides on sizes"), torch.randn(5, 3, 8, 8)
        supernet = convert(model, images[:2]).eval()
        with torch.no_grad():
            assert torch.equal(supernet(images), model(images))

    def test_a_number_of_images_that_is_looked_at(self):
        class OfTwo(nn.Module):
            def forward(self, x):
                return x * 2 if len(x) == 2 else x

        with pytest.raises(ConfigError, match=r"another network for images of the shape \(3, 3, 8, 8\)"):
            convert(Net(OfTwo()), torch.randn(2, 3, 8, 8))

    def test_another_resolution_that_is_another_network(self):
        model, images = make_rule("decides on sizes"), torch.randn(2, 3, 8, 8)
        with pytest.raises(
            ConfigError, match=r"another network for images of the shape \(3, 3, 6, 6\).*number or size"
        ):
            convert(model, images, resolutions=[6, 8])

    def test_resolutions_of_attention(self):
        check(make_rule("attention"), torch.randn(2, 3, 8, 8), resolutions=[4, 8])

    def test_a_module_that_cannot_be_traced_is_left_whole_and_named(self):
        summary = convert(make_rule("cannot be traced"), torch.randn(2, 3, 8, 8)).summary()
        assert "body.0 (CannotBeTraced): there is no rule for it (stem)" in summary


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
