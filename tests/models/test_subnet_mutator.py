"""Search groups, switching, and MMRazor's own ways to ask."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from pss_razor.core import ConfigError, Subnet
from pss_razor.models import SubnetMutator
from pss_razor.registry import MODELS

from mmrazor.models.mutables import OneShotMutableOP, OneShotMutableValue

SMALLEST = dict(stem=24, stage1=16, stage2=24, stage3=24, stage4=48, stage5=72, stage6=120, stage7=240, resolution=128)
LARGEST = dict(stem=32, stage1=16, stage2=24, stage3=32, stage4=64, stage5=96, stage6=160, stage7=320, resolution=224)


class TestMobileNetV2:
    def test_space(self, imagenet_mbv2):
        space = imagenet_mbv2.space
        assert space.size == 41_184
        assert {d.name: d.values for d in space.dimensions} == dict(
            stem=(24, 32),
            stage1=(16,),
            stage2=(24,),
            stage3=(24, 32),
            stage4=(48, 56, 64),
            stage5=(72, 80, 88, 96),
            stage6=(120, 128, 136, 144, 152, 160),
            stage7=tuple(range(240, 321, 8)),
            resolution=tuple(range(128, 225, 8)),
        )
        assert {d.name: d.kind for d in space.dimensions} == {
            name: "resolution" if name == "resolution" else "channels" for name in LARGEST
        }
        assert dict(space.largest) == LARGEST and dict(space.smallest) == SMALLEST

    def test_probabilities_are_those_of_a_uniform_multiplier(self, imagenet_mbv2):
        """Against a fine grid of multipliers through the rounding rule as the design states it."""

        def make_divisible(v):
            n = max(8, int(v + 4) // 8 * 8)
            return n if n >= 0.9 * v else n + 8

        multipliers = 0.75 + 0.25 * (np.arange(20_000) + 0.5) / 20_000
        for dimension in imagenet_mbv2.space.dimensions:
            if dimension.kind == "resolution":
                assert dimension.probabilities == pytest.approx([1 / 13] * 13)
                continue
            widths = [make_divisible(dimension.values[-1] * m) for m in multipliers]
            frequency = [widths.count(value) / len(widths) for value in dimension.values]
            assert sum(frequency) == pytest.approx(1.0)
            assert dimension.probabilities == pytest.approx(frequency, abs=2e-4), dimension.name

    def test_the_largest_is_active_at_first(self, build_small):
        algorithm = build_small()
        assert algorithm.mutator.active_subnet == algorithm.space.largest

    def test_activate_switches_every_op(self, small_mbv2, random_subnet):
        mutator = small_mbv2.mutator
        shapes = {}
        backbone = small_mbv2.architecture.backbone
        handles = [
            module.register_forward_hook(lambda m, i, o, name=name: shapes.update({name: tuple(o.shape[1:])}))
            for name, module in backbone.named_children()
        ]
        try:
            for _ in range(3):
                subnet = random_subnet(mutator.space)
                with mutator.active(subnet), torch.no_grad():
                    small_mbv2.eval()(torch.zeros(1, 3, 64, 64))
                for stage in range(1, 8):
                    assert shapes[f"layer{stage}"][0] == subnet[f"stage{stage}"]
                assert shapes["conv1"] == (subnet["stem"], subnet["resolution"] // 2, subnet["resolution"] // 2)
                assert shapes["conv2"] == (1280, -(-subnet["resolution"] // 32), -(-subnet["resolution"] // 32))
        finally:
            for handle in handles:
                handle.remove()

    def test_active_restores(self, small_mbv2, random_subnet):
        mutator = small_mbv2.mutator
        before, inside, deeper = mutator.active_subnet, random_subnet(mutator.space), mutator.space.smallest
        with mutator.active(inside):
            assert mutator.active_subnet == inside == Subnet(mutator.current_choices)
            with mutator.active(deeper):
                assert Subnet(mutator.current_choices) == deeper
            assert Subnet(mutator.current_choices) == inside
        assert mutator.active_subnet is before and Subnet(mutator.current_choices) == before

    def test_active_restores_after_an_exception(self, small_mbv2):
        mutator = small_mbv2.mutator
        before = mutator.active_subnet
        with pytest.raises(RuntimeError, match="inside"), mutator.active(mutator.space.smallest):
            raise RuntimeError("inside")
        assert mutator.active_subnet is before and Subnet(mutator.current_choices) == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (dict(stage7=250), r"stage7 = 250 is not in the search space; choose from \[240, 248"),
            (dict(resolution=63), "resolution = 63 is not in the search space"),
            (dict(depth=3), r"the search groups are \['resolution', 'stage1'"),
        ],
    )
    def test_unknown_choice_leaves_the_supernet_as_it_was(self, small_mbv2, change, message):
        mutator = small_mbv2.mutator
        before = mutator.current_choices
        wrong = {**mutator.space.smallest, **change}
        for switch in (mutator.set_choices, lambda choices: mutator.activate(Subnet(choices))):
            with pytest.raises(ConfigError, match=message):
                switch(wrong)
            assert mutator.current_choices == before and dict(mutator.active_subnet) == before
        with pytest.raises(ConfigError, match=message), mutator.active(Subnet(wrong)):
            pytest.fail("the body ran")
        assert mutator.current_choices == before

    def test_missing_choice(self, small_mbv2):
        choices = dict(small_mbv2.space.smallest)
        del choices["stem"]
        with pytest.raises(ConfigError, match="a subnet chooses for"):
            small_mbv2.mutator.set_choices(choices)

    def test_activate_undoes_a_choice_set_behind_its_back(self, small_mbv2):
        mutator = small_mbv2.mutator
        with mutator.active(mutator.space.smallest):
            mutator.search_groups["stem"][0].current_choice = 32
        assert Subnet(mutator.current_choices) == mutator.space.largest


class TestMMRazorsInterface:
    def test_set_choices(self, small_mbv2):
        mutator = small_mbv2.mutator
        try:
            mutator.set_min_choices()
            assert mutator.active_subnet == mutator.space.smallest == Subnet(mutator.current_choices)
            mutator.set_max_choices()
            assert mutator.active_subnet == mutator.space.largest == Subnet(mutator.current_choices)
            choices = {**mutator.space.largest, "stage7": 248}
            mutator.set_choices(choices)
            assert mutator.current_choices == choices
        finally:
            mutator.activate(mutator.space.largest)

    @pytest.mark.parametrize("kind", ["random", "max", "min"])
    def test_sample_choices(self, small_mbv2, kind):
        mutator = small_mbv2.mutator
        choices = mutator.sample_choices(kind)
        assert set(choices) == set(mutator.space.names)
        assert {type(value) for value in choices.values()} == {int}
        mutator.space.encode([choices])
        if kind != "random":
            assert choices == dict(mutator.space.largest if kind == "max" else mutator.space.smallest)

    def test_max_and_min_choices(self, small_mbv2):
        mutator = small_mbv2.mutator
        assert mutator.max_choices == dict(mutator.space.largest)
        assert mutator.min_choices == dict(mutator.space.smallest)


class Ops(nn.Module):
    """An op and a value to choose."""

    def __init__(self, op_alias="kernel", value_alias="factor"):
        super().__init__()
        candidates = dict(three=dict(type="TestConv", size=3), one=dict(type="TestConv", size=1))
        self.op = OneShotMutableOP(candidates, module_kwargs={}, alias=op_alias)
        self.factor = OneShotMutableValue([2, 1], alias=value_alias)

    def forward(self, x):
        return self.op(x) * self.factor.current_choice


@MODELS.register_module(name="TestConv", force=True)
class Conv(nn.Conv2d):
    def __init__(self, size):
        super().__init__(3, 3, size, padding=size // 2)


class TestOtherSearchGroups:
    def test_ops_and_values(self):
        mutator, supernet = SubnetMutator(), Ops()
        mutator.prepare_from_supernet(supernet)
        kinds = {d.name: (d.kind, set(d.values)) for d in mutator.space.dimensions}
        assert kinds == dict(kernel=("op", {"one", "three"}), factor=("value", {1, 2}))
        with mutator.active(Subnet(dict(kernel="one", factor=1))):
            one = supernet(torch.ones(1, 3, 4, 4))
        with mutator.active(Subnet(dict(kernel="one", factor=2))):
            torch.testing.assert_close(supernet(torch.ones(1, 3, 4, 4)), 2 * one)
        torch.testing.assert_close(one, supernet.op._candidates["one"](torch.ones(1, 3, 4, 4)))

    def test_sampled_choices_are_plain_python(self):
        mutator = SubnetMutator()
        mutator.prepare_from_supernet(Ops())
        np.random.seed(0)
        random.seed(0)
        draws = [mutator.sample_choices() for _ in range(20)]
        assert {draw["kernel"] for draw in draws} == {"one", "three"} and {draw["factor"] for draw in draws} == {1, 2}
        for draw in draws:
            assert type(draw["kernel"]) is str and type(draw["factor"]) is int
            assert eval(repr(draw)) == draw and json.loads(json.dumps(draw)) == draw

    def test_nothing_to_search(self):
        with pytest.raises(ConfigError, match="Sequential has nothing to search"):
            SubnetMutator().prepare_from_supernet(nn.Sequential(nn.Conv2d(3, 3, 1)))

    def test_two_groups_of_one_name(self):
        class Channels(nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone = MODELS.build(dict(type="SlimmableMobileNetV2"))
                self.op = Ops(op_alias="stem").op

        with pytest.raises(ConfigError, match="two search groups are called 'stem'"):
            SubnetMutator().prepare_from_supernet(Channels())


def test_configs_of_0_1_name_it_otherwise():
    assert MODELS.get("PSSMutator") is MODELS.get("SubnetMutator") is SubnetMutator
