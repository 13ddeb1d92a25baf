"""Reading the layers off a built supernet."""

import contextlib
from collections import Counter

import numpy as np
import pssnet_mbv1
import pytest
import torch
from torch import nn

from pss_razor.core import AdditiveCost, CostTerm, Dimension, SearchSpace
from pss_razor.estimators import (
    BlockGeometry,
    FlopsEstimator,
    LatencyTable,
    ParamsEstimator,
    latency_cost,
    read_cost_graph,
)
from pss_razor.estimators.latency.measure import find_geometries
from pss_razor.models import (
    PrefixChannelContainer,
    PrefixMutableChannel,
    SlicedBatchNorm2d,
    SlicedConv2d,
    SubnetMutator,
)
from pss_razor.registry import MODELS

from mmrazor.models.mutables import MutableChannelContainer, OneShotMutableChannelUnit


def read(algorithm):
    return read_cost_graph(algorithm.architecture, algorithm.space, algorithm.mutator.active)


def snapshot(model: nn.Module) -> dict:
    """Everything that reading a model could leave changed."""
    modules = {
        name: (
            m.training,
            m.__dict__.get("forward"),
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            sorted(k for k in m.__dict__ if k != "_hook"),
        )
        for name, m in model.named_modules()
    }
    tensors = {
        name: (t.data_ptr(), t.device, t.stride(), t._version, t.requires_grad, t.grad)
        for name, t in [*model.named_parameters(), *model.named_buffers()]
    }
    return dict(modules=modules, tensors=tensors, grad=torch.is_grad_enabled())


class TestMobileNetV2:
    def test_layers(self, imagenet_mbv2):
        layers = imagenet_mbv2.cost_graph.layers
        # stem and last conv, 17 projections, 16 expansions; one depthwise conv a block; a BN after each
        assert Counter(layer.kind for layer in layers) == dict(conv=35, depthwise=17, norm=52, pool=1, linear=1)
        assert len({layer.name for layer in layers}) == len(layers)
        modules = dict(imagenet_mbv2.architecture.named_modules())
        assert all(layer.name in modules for layer in layers)
        assert [layer.name for layer in layers if layer.has_bias and layer.kind != "norm"] == ["head.fc"]
        assert Counter(layer.kernel_area for layer in layers) == {9: 18, 1: 34 + 52 + 2}

    def test_extents_are_governed_by_the_right_groups(self, imagenet_mbv2):
        layers = {layer.name: layer for layer in imagenet_mbv2.cost_graph.layers}
        expansion = layers["backbone.layer2.1.conv.0.conv"]  # second block of the second stage
        # stage 2 is 24 wide at every multiplier, so that nothing governs it
        assert expansion.in_channels.dimension is None and expansion.in_channels.values.tolist() == [24]
        assert expansion.out_channels.dimension is None and expansion.out_channels.values.tolist() == [144]
        first = layers["backbone.layer3.0.conv.0.conv"]
        assert first.in_channels.dimension is None and first.in_channels.values.tolist() == [24]
        assert first.out_area.values.tolist() == [(r // 4) ** 2 for r in range(128, 225, 8)]
        assert first.out_area.dimension == "resolution"
        projection = layers["backbone.layer6.0.conv.2.conv"]
        assert projection.in_channels.dimension == "stage5"
        assert projection.in_channels.values.tolist() == [6 * w for w in (72, 80, 88, 96)]
        assert projection.out_channels.dimension == "stage6"
        assert projection.out_channels.values.tolist() == [120, 128, 136, 144, 152, 160]
        assert projection.out_area.values.tolist() == [(-(-r // 32)) ** 2 for r in range(128, 225, 8)]
        last = layers["backbone.conv2.conv"]
        assert last.in_channels.dimension == "stage7" and last.out_channels.dimension is None
        assert last.out_channels.values.tolist() == [1280]

    @pytest.mark.parametrize("training", [False, True])
    def test_leaves_the_model_untouched(self, imagenet_mbv2, training):
        imagenet_mbv2.train(training)
        subnet = imagenet_mbv2.space.smallest
        with imagenet_mbv2.mutator.active(subnet):
            before = snapshot(imagenet_mbv2)
            read(imagenet_mbv2)
            assert snapshot(imagenet_mbv2) == before
            assert imagenet_mbv2.mutator.active_subnet is subnet

    @pytest.mark.parametrize("failing_call", [0, 4])
    def test_leaves_the_model_untouched_when_its_forward_raises(self, imagenet_mbv2, failing_call):
        calls = []

        def fail(module, inputs):
            calls.append(module)
            if len(calls) > failing_call:
                raise RuntimeError("out of luck")

        subnet = imagenet_mbv2.space.smallest
        with imagenet_mbv2.mutator.active(subnet):
            before = snapshot(imagenet_mbv2)
            handle = imagenet_mbv2.architecture.backbone.conv2.conv.register_forward_pre_hook(fail)
            try:
                with pytest.raises(RuntimeError, match="out of luck"):
                    read(imagenet_mbv2)
            finally:
                handle.remove()
            assert len(calls) == failing_call + 1
            assert snapshot(imagenet_mbv2) == before
            assert imagenet_mbv2.mutator.active_subnet is subnet
        assert torch.is_grad_enabled()

    def test_keeps_a_forward_that_was_overridden_before(self, imagenet_mbv2):
        norm = imagenet_mbv2.architecture.backbone.conv1.bn
        own = norm.forward
        norm.forward = own
        try:
            read(imagenet_mbv2)
            assert norm.__dict__.get("forward") is own
        finally:
            norm.__dict__.pop("forward", None)

    def test_computes_nothing(self, imagenet_mbv2):
        """Only shapes: nothing the size of an activation is allocated on the CPU."""
        seen = set()
        handle = imagenet_mbv2.architecture.backbone.conv2.register_forward_hook(
            lambda module, inputs, output: seen.add((inputs[0].device.type, output.device.type))
        )
        try:
            read(imagenet_mbv2)
        finally:
            handle.remove()
        assert seen == {("meta", "meta")}


@MODELS.register_module(name="TinyBackboneOfTests", force=True)
class TinyBackbone(nn.Module):
    """Two searched widths, a depthwise conv, a bias, a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = SlicedConv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm1 = SlicedBatchNorm2d(16)
        self.depthwise = SlicedConv2d(16, 16, 5, padding=2, groups=16)
        self.conv2 = SlicedConv2d(16, 24, 1, bias=True)
        OneShotMutableChannelUnit._register_channel_container(self, PrefixChannelContainer)
        first = PrefixMutableChannel(16, {8: 0.25, 16: 0.75}, alias="first")
        second = PrefixMutableChannel(24, {16: 0.5, 20: 0.25, 24: 0.25}, alias="second")
        for op in (self.conv1, self.norm1, self.depthwise):
            MutableChannelContainer.register_mutable_channel_to_module(op, first, True)
        for op in (self.depthwise, self.conv2):
            MutableChannelContainer.register_mutable_channel_to_module(op, first, False)
        MutableChannelContainer.register_mutable_channel_to_module(self.conv2, second, True)
        self.last_mutable = second

    def forward(self, x):
        return (self.conv2(self.depthwise(self.norm1(self.conv1(x)).relu())),)


def tiny_algorithm(**architecture):
    return MODELS.build(
        dict(
            type="PSS",
            architecture=dict(
                type="SlimmableImageClassifier",
                backbone=dict(type="TinyBackboneOfTests"),
                neck=dict(type="mmcls.GlobalAveragePooling"),
                head=dict(type="SlicedLinearClsHead", num_classes=7, in_channels=24),
                **architecture,
            ),
            mutator=dict(type="SubnetMutator"),
            estimators=dict(flops=dict(type="FlopsEstimator"), params=dict(type="ParamsEstimator")),
            constraints=[dict(metric="params", first=0.001, last=0.002, step=0.001)],
        )
    )


class TestOwnBackbone:
    def test_space(self):
        space = tiny_algorithm(resolutions=[16, 32]).space
        assert {d.name: d.values for d in space.dimensions} == dict(
            first=(8, 16), second=(16, 20, 24), resolution=(16, 32)
        )
        probabilities = {d.name: d.probabilities for d in space.dimensions}
        assert probabilities == dict(first=(0.25, 0.75), second=(0.5, 0.25, 0.25), resolution=(0.5, 0.5))

    def test_costs_by_hand(self):
        algorithm = tiny_algorithm(resolutions=[16, 32])
        rows = algorithm.space.enumerate()
        assert len(rows) == 12
        flops, params = algorithm.costs["flops"](rows), algorithm.costs["params"](rows)
        for row, macs, weights in zip(rows, flops, params, strict=True):
            subnet = algorithm.space.decode(row)
            a, b, area = subnet["first"], subnet["second"], (subnet["resolution"] // 2) ** 2
            assert macs * 1e6 == pytest.approx(area * (27 * a + 25 * a + a * b + b) + 7 * b, rel=1e-12)
            assert weights * 1e6 == pytest.approx(27 * a + 2 * a + 26 * a + (a + 1) * b + 7 * (b + 1), rel=1e-12)

    def test_runs_at_every_subnet(self):
        algorithm = tiny_algorithm(resolutions=[16, 32])
        for row in algorithm.space.enumerate():
            subnet = algorithm.space.decode(row)
            with algorithm.mutator.active(subnet):
                assert algorithm(torch.zeros(2, 3, 32, 32), mode="tensor").shape == (2, 7)
                assert algorithm.architecture.backbone(torch.zeros(2, 3, 32, 32))[0].shape[1] == subnet["second"]

    def test_without_a_searched_resolution(self):
        algorithm = tiny_algorithm()
        assert set(algorithm.space.names) == {"first", "second"}
        graph = read_cost_graph(algorithm.architecture, algorithm.space, algorithm.mutator.active, input_size=32)
        row = algorithm.space.encode([algorithm.space.largest])
        expected = 256 * (27 * 16 + 25 * 16 + 16 * 24 + 24) + 7 * 24
        assert FlopsEstimator().build_cost(graph)(row)[0] * 1e6 == pytest.approx(expected, rel=1e-12)


class Choosy(nn.Module):
    """A supernet without MMRazor: the map is cut to a height and a width that depend on the choices."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(3, 5, 1)
        self.choice = {}

    def forward(self, images):
        height, width = self.size(**self.choice)
        return self.conv(images[:, :, :height, :width])

    @contextlib.contextmanager
    def active(self, subnet):
        before, self.choice = self.choice, dict(subnet)
        try:
            yield
        finally:
            self.choice = before


TWO_GROUPS = SearchSpace([Dimension("a", "value", tuple(range(1, 9))), Dimension("b", "value", tuple(range(1, 9)))])


class TestForeignSupernets:
    def test_values_of_a_group(self):
        model = Choosy(lambda a, b: (a, 3))
        graph = read_cost_graph(model, TWO_GROUPS, model.active, input_size=20)
        (layer,) = graph.layers
        assert layer.out_area.dimension == "a"
        assert layer.out_area.values.tolist() == [3 * a for a in range(1, 9)]
        cost = FlopsEstimator().build_cost(graph)
        rows = TWO_GROUPS.enumerate()
        np.testing.assert_allclose(cost(rows) * 1e6, (rows[:, 0] + 1) * 3 * 15)
        assert ParamsEstimator().build_cost(graph)(rows[:1])[0] == pytest.approx(20e-6)

    def test_a_size_of_two_groups_is_refused(self):
        model = Choosy(lambda a, b: (a, b))
        with pytest.raises(NotImplementedError, match=r"layer conv depends on several search groups: \['a', 'b'\]"):
            read_cost_graph(model, TWO_GROUPS, model.active, input_size=20)

    def test_a_size_of_two_groups_that_moving_one_does_not_show_is_refused(self):
        model = Choosy(lambda a, b: (max(a, b), 1))
        with pytest.raises(NotImplementedError, match="it depends on several search groups"):
            read_cost_graph(model, TWO_GROUPS, model.active, input_size=20)

    def test_grouped_conv_is_refused(self):
        model = nn.Sequential(nn.Conv2d(4, 8, 1, groups=2))
        space = SearchSpace([Dimension("a", "value", (1,))])
        with pytest.raises(NotImplementedError, match="0 is a grouped convolution of 2 groups"):
            read_cost_graph(model, space, lambda subnet: contextlib.nullcontext(), input_channels=4, input_size=8)

    def test_norm_without_parameters_costs_nothing(self):
        model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8, affine=False))
        space = SearchSpace([Dimension("a", "value", (1,))])
        graph = read_cost_graph(model, space, lambda subnet: contextlib.nullcontext(), input_size=8)
        assert [layer.kind for layer in graph.layers] == ["conv"]
        assert ParamsEstimator().build_cost(graph)(space.enumerate())[0] == pytest.approx(24e-6)

    def test_a_layer_that_runs_twice_counts_twice_or_is_refused(self):
        conv = nn.Conv2d(3, 3, 1)
        model = nn.Sequential(conv, nn.ReLU(), conv)
        space = SearchSpace([Dimension("a", "value", (1,))])
        try:
            graph = read_cost_graph(model, space, lambda subnet: contextlib.nullcontext(), input_size=8)
        except NotImplementedError:
            return
        assert FlopsEstimator().build_cost(graph)(space.enumerate())[0] == pytest.approx(2 * 64 * 9e-6)

    def test_linear_on_tokens(self):
        model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 5))
        space = SearchSpace([Dimension("a", "value", (1,))])
        graph = read_cost_graph(model, space, lambda subnet: contextlib.nullcontext(), input_size=8)
        assert FlopsEstimator().build_cost(graph)(space.enumerate())[0] == pytest.approx(3 * 64 * 5e-6)

    def test_a_layer_that_an_op_leaves_out_costs_nothing_then(self):
        model = Optional()
        space = SearchSpace([Dimension("a", "op", ("extra", "skip")), Dimension("b", "op", ("skip", "extra"))])
        graph = read_cost_graph(model, space, model.active, input_size=8)
        one = 3 * 3 * 64e-6
        expected = {("extra", "extra"): 3, ("extra", "skip"): 2, ("skip", "extra"): 2, ("skip", "skip"): 1}
        for subnet_row in space.enumerate():
            subnet = space.decode(subnet_row)
            cost = FlopsEstimator().build_cost(graph)(subnet_row[None])[0]
            assert cost == pytest.approx(expected[subnet["a"], subnet["b"]] * one)
        # two of the three layers are left out by an op, and measured where they run
        assert [block.runs is None for block in graph.blocks] == [True, False, False]
        (geometry,) = find_geometries(graph)
        table = LatencyTable({geometry: 5.0}, "cpu")
        np.testing.assert_allclose(latency_cost(table, graph)(space.enumerate()), [10, 15, 5, 10])

    def test_a_layer_that_another_kind_of_choice_leaves_out_is_refused_by_name(self):
        model = Optional()
        space = SearchSpace([Dimension("a", "value", ("skip", "extra")), Dimension("b", "op", ("skip", "extra"))])
        with pytest.raises(NotImplementedError, match="layer extra_a does not run in every subnet"):
            read_cost_graph(model, space, model.active, input_size=8)

    def test_a_layer_that_two_ops_decide_on_is_refused_by_name(self):
        model = Optional(together=True)
        space = SearchSpace([Dimension("a", "op", ("skip", "extra")), Dimension("b", "op", ("skip", "extra"))])
        with pytest.raises(NotImplementedError, match="whether layer extra_a runs depends on several"):
            read_cost_graph(model, space, model.active, input_size=8)


class Optional(nn.Module):
    """A supernet two of whose layers are left out by a choice each, or both by both choices together."""

    def __init__(self, together=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.extra_a = nn.Conv2d(3, 3, 1)
        self.extra_b = nn.Conv2d(3, 3, 1)
        self.together = together
        self.choices = {}

    def forward(self, images):
        x = self.conv(images)
        extra = {name: choice == "extra" for name, choice in self.choices.items()}
        if self.together:
            extra = dict.fromkeys(extra, all(extra.values()))
        x = self.extra_a(x) if extra["a"] else x
        return self.extra_b(x) if extra["b"] else x

    @contextlib.contextmanager
    def active(self, subnet):
        self.choices = dict(subnet)
        yield


class TestGeometries:
    """What a latency depends on, against spaces that are enumerated by hand."""

    def test_mobilenet_v1_has_the_blocks_of_the_authors_table(self, build_algorithm):
        found = find_geometries(build_algorithm("pss_mbv1_flops").cost_graph)
        assert len(found) == 14590 and sum(geometry.block_type == "MBV1Block" for geometry in found) == 14531
        assert set(found) == {BlockGeometry(*sizes) for sizes in pssnet_mbv1.all_blocks()}

    def test_a_block_that_does_not_expand_keeps_its_hidden_width_where_its_kind_has_one(self, imagenet_mbv2):
        blocks = [g for g in find_geometries(imagenet_mbv2.cost_graph) if g.block_type == "MBV2Block"]
        assert {g.cmid == g.cin for g in blocks} == {True, False}
        assert all(g.cmid == (g.cin if g.cout == 16 else 6 * g.cin) for g in blocks)

    def test_bottlenecks_have_one(self, build_algorithm):
        graph = build_algorithm("pss_r50_flops").cost_graph
        assert all(block.mid_channels is not None for block in graph.blocks if block.block_type == "Bottleneck")

    def test_a_kind_of_block_without_a_hidden_width_of_its_own(self):
        block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Conv2d(3, 5, 1))
        block.latency_block = "Separable"
        space = SearchSpace([Dimension("a", "value", (1,))])
        graph = read_cost_graph(nn.Sequential(block), space, lambda subnet: contextlib.nullcontext(), input_size=8)
        (geometry,) = find_geometries(graph)
        assert geometry == BlockGeometry("Separable", 8, 3, 5, None, None, 1, None)


def test_sum_of_terms_by_hand(imagenet_mbv2):
    """`CostGraph.sum` takes any function of a layer, here its number of output channels."""
    graph = imagenet_mbv2.cost_graph

    def terms(layer):
        if layer.kind != "depthwise":
            return []
        return layer.tabulate(graph.space, lambda out_channels, **_: out_channels)

    cost = graph.sum(terms, scale=0.5)
    assert isinstance(cost, AdditiveCost)
    row = graph.space.encode([graph.space.largest])
    blocks = [(32, 1), (16, 6), (24, 12), (32, 18), (64, 24), (96, 18), (160, 18)]  # width, expansion times blocks
    assert cost(row)[0] == 0.5 * sum(width * factor for width, factor in blocks)


def test_tabulate_orders_axes_as_the_space_does(imagenet_mbv2):
    layer = next(spec for spec in imagenet_mbv2.cost_graph.layers if spec.name == "backbone.layer6.0.conv.2.conv")
    (term,) = layer.tabulate(
        imagenet_mbv2.space, lambda in_channels, out_channels, **_: in_channels * 1000 + out_channels
    )
    assert isinstance(term, CostTerm)
    assert set(term.dimensions) == {"stage5", "stage6", "resolution"}
    positions = [imagenet_mbv2.space.position(name) for name in term.dimensions]
    assert positions == sorted(positions)
    index = dict(stage5=1, stage6=2, resolution=0)
    assert term.table[tuple(index[name] for name in term.dimensions)] == 480 * 1000 + 136


def test_mutator_reads_a_backbone_alone():
    """The mutator needs dynamic ops only, no classifier and no algorithm."""
    mutator = SubnetMutator()
    backbone = TinyBackbone()
    mutator.prepare_from_supernet(backbone)
    graph = read_cost_graph(backbone, mutator.space, mutator.active, input_size=8)
    assert {layer.name for layer in graph.layers} == {"conv1", "norm1", "depthwise", "conv2"}
