"""Sliced ops against MMRazor's masked ones and torch's."""

import itertools

import pytest
import torch
from torch import nn

from pss_razor.models import (
    PrefixChannelContainer,
    PrefixMutableChannel,
    SlicedBatchNorm2d,
    SlicedConv2d,
    SlicedLinear,
)

from mmrazor.models.architectures.dynamic_ops import DynamicBatchNorm2d, DynamicConv2d, DynamicLinear
from mmrazor.models.mutables import MutableChannelContainer, SquentialMutableChannel

FULL = dict(in_channels=12, out_channels=16, num_features=16, in_features=12, out_features=16)


def prefix(width, full):
    """A container with a channel mutable of ours, ``width`` of ``full`` channels active."""
    mutable = PrefixMutableChannel(full, dict.fromkeys(range(1, full + 1), 1 / full), alias="width")
    mutable.current_choice = width
    container = PrefixChannelContainer(full)
    container.register_mutable(mutable, 0, full)
    return container


def masked(width, full):
    """The same with MMRazor's own."""
    mutable = SquentialMutableChannel(full)
    mutable.current_choice = width
    container = MutableChannelContainer(full)
    container.register_mutable(mutable, 0, full)
    return container


def twins(sliced_type, masked_type, widths, *args, **kwargs):
    """A sliced and a masked op of the same weights and active widths."""
    torch.manual_seed(1)
    ours, theirs = sliced_type(*args, **kwargs), masked_type(*args, **kwargs)
    for tensor in ours.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if tensor.dim() == 1 else tensor.normal_()
    theirs.load_state_dict(ours.state_dict())
    for attribute, width in widths.items():
        ours.register_mutable_attr(attribute, prefix(width, FULL[attribute]))
        theirs.register_mutable_attr(attribute, masked(width, FULL[attribute]))
    return ours, theirs


def assert_equal_runs(ours, theirs, x):
    """Outputs, gradients and buffers of one forward and backward pass."""
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    out1, out2 = ours(x1), theirs(x2)
    assert out1.shape == out2.shape
    torch.testing.assert_close(out1, out2)
    weights = torch.randn(out1.shape, generator=torch.Generator().manual_seed(3))
    (out1 * weights).sum().backward()
    (out2 * weights).sum().backward()
    torch.testing.assert_close(x1.grad, x2.grad)
    for (name, p1), (_, p2) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert p1.grad.shape == p1.shape, name
        torch.testing.assert_close(p1.grad, p2.grad, msg=name)
    for (name, b1), (_, b2) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        torch.testing.assert_close(b1, b2, msg=name)


class TestAgainstMMRazor:
    @pytest.mark.parametrize(
        "widths", [{}, dict(in_channels=5), dict(out_channels=9), dict(in_channels=5, out_channels=9)]
    )
    @pytest.mark.parametrize("bias", [False, True])
    def test_conv(self, widths, bias):
        ours, theirs = twins(SlicedConv2d, DynamicConv2d, widths, 12, 16, 3, stride=2, padding=1, bias=bias)
        assert_equal_runs(ours, theirs, torch.randn(2, widths.get("in_channels", 12), 9, 9))
        if "out_channels" in widths:
            assert not ours.weight.grad[9:].any() and ours.weight.grad[:9].any()

    @pytest.mark.parametrize("width", [1, 7, 16])
    def test_depthwise_conv(self, width, monkeypatch):
        monkeypatch.setitem(FULL, "in_channels", 16)
        widths = dict(in_channels=width, out_channels=width)
        ours, theirs = twins(SlicedConv2d, DynamicConv2d, widths, 16, 16, 5, padding=2, dilation=1, groups=16)
        assert_equal_runs(ours, theirs, torch.randn(2, width, 8, 8))

    @pytest.mark.parametrize("widths", [{}, dict(in_features=5), dict(in_features=3, out_features=9)])
    def test_linear(self, widths):
        ours, theirs = twins(SlicedLinear, DynamicLinear, widths, 12, 16)
        assert_equal_runs(ours, theirs, torch.randn(4, widths.get("in_features", 12)))

    @pytest.mark.parametrize("momentum", [0.1, 0.3, None])
    @pytest.mark.parametrize("training", [True, False])
    def test_batch_norm(self, momentum, training):
        ours, theirs = twins(SlicedBatchNorm2d, DynamicBatchNorm2d, dict(num_features=6), 16, momentum=momentum)
        untouched = ours.running_mean[6:].clone()
        ours.train(training), theirs.train(training)
        for seed in range(3):  # the third pass shows a cumulative average
            torch.manual_seed(seed)
            ours.zero_grad(), theirs.zero_grad()
            assert_equal_runs(ours, theirs, 3 + 2 * torch.randn(4, 6, 5, 5))
        assert ours.num_batches_tracked.item() == (3 if training else 0)
        assert torch.equal(ours.running_mean[6:], untouched)

    def test_batch_norm_at_changing_widths(self):
        ours, theirs = twins(SlicedBatchNorm2d, DynamicBatchNorm2d, dict(num_features=16), 16, momentum=None)
        for width in (16, 3, 9):
            for op in (ours, theirs):
                op.zero_grad()
                (mutable,) = op.mutable_attrs["num_features"].mutable_channels.values()
                mutable.current_choice = width
            assert_equal_runs(ours, theirs, torch.randn(4, width, 5, 5))


class TestBatchNormAgainstTorch:
    @pytest.mark.parametrize(
        ("momentum", "affine", "track", "training", "switched_off"),
        list(itertools.product([0.1, None], [True, False], [True, False], [True, False], [True, False])),
    )
    def test_same_rules(self, momentum, affine, track, training, switched_off):
        options = dict(momentum=momentum, affine=affine, track_running_stats=track)
        ours, theirs = SlicedBatchNorm2d(4, **options).train(training), nn.BatchNorm2d(4, **options).train(training)
        if switched_off:  # as some programs do after construction
            ours.track_running_stats = theirs.track_running_stats = False
        for seed in range(2):
            x = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) * 3 + 1
            torch.testing.assert_close(ours(x), theirs(x))
        for name, tensor in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor, msg=name)

    def test_running_statistics_stay_the_same_tensors(self):
        norm = SlicedBatchNorm2d(4)
        pointers = [b.data_ptr() for b in norm.buffers()]
        norm(torch.randn(2, 4, 3, 3))
        assert [b.data_ptr() for b in norm.buffers()] == pointers

    def test_wrong_input_is_refused(self):
        with pytest.raises(ValueError, match="expected 4D input"):
            SlicedBatchNorm2d(4)(torch.zeros(2, 4))


def narrow_ops(dtype=torch.float32):
    conv = twins(SlicedConv2d, DynamicConv2d, dict(in_channels=5, out_channels=9), 12, 16, 3, stride=2, padding=1)[0]
    depthwise = SlicedConv2d(16, 16, 3, padding=2, dilation=2, groups=16, bias=False)
    depthwise.register_mutable_attr("out_channels", prefix(7, 16))
    depthwise.register_mutable_attr("in_channels", prefix(7, 16))
    norm = twins(SlicedBatchNorm2d, DynamicBatchNorm2d, dict(num_features=6), 16, momentum=None, eps=1e-3)[0]
    linear = twins(SlicedLinear, DynamicLinear, dict(in_features=3, out_features=9), 12, 16)[0]
    cases = dict(
        conv=(conv, torch.randn(2, 5, 9, 9)),
        depthwise=(depthwise, torch.randn(2, 7, 9, 9)),
        norm=(norm, torch.randn(2, 6, 9, 9)),
        linear=(linear, torch.randn(2, 3)),
    )
    return {name: (op.to(dtype), x.to(dtype)) for name, (op, x) in cases.items()}


OPS = ("conv", "depthwise", "norm", "linear")


class TestSlices:
    @pytest.mark.parametrize("name", OPS)
    def test_are_views(self, name):
        op, _ = narrow_ops()[name]
        own = {t.data_ptr(): t for t in [*op.parameters(), *op.buffers()] if t.is_floating_point()}
        views = [t for t in op.get_dynamic_params() if isinstance(t, torch.Tensor)]
        assert len(views) == len(own)
        for view in views:
            assert own[view.data_ptr()].numel() > view.numel() and view.stride() == own[view.data_ptr()].stride()

    @pytest.mark.parametrize("name", OPS)
    def test_static_op_equals_and_owns_its_storage(self, name):
        op, x = narrow_ops()[name]
        op.eval()
        static = op.to_static_op().eval()
        plain = dict(conv=nn.Conv2d, depthwise=nn.Conv2d, norm=nn.BatchNorm2d, linear=nn.Linear)[name]
        assert type(static) is plain
        expected = op(x).detach()
        torch.testing.assert_close(static(x), expected)
        storages = {t.untyped_storage().data_ptr() for t in op.state_dict().values()}
        for tensor in static.state_dict().values():
            assert tensor.untyped_storage().data_ptr() not in storages
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        with torch.no_grad():
            for tensor in static.state_dict().values():
                tensor.zero_()
        torch.testing.assert_close(op(x), expected)

    def test_static_norm_counts_on(self):
        op, x = narrow_ops()["norm"]
        op.train()
        for _ in range(2):
            op(x)
        static = op.to_static_op().train()
        assert static.num_batches_tracked.item() == 2 and static.momentum is None and static.eps == 1e-3
        op(x * 3), static(x * 3)
        torch.testing.assert_close(static.running_var, op.running_var[:6])

    @pytest.mark.parametrize("name", OPS)
    def test_static_op_keeps_the_dtype(self, name):
        op, x = narrow_ops(torch.float64)[name]
        static = op.eval().to_static_op().eval()
        assert {t.dtype for t in static.parameters()} == {torch.float64}
        torch.testing.assert_close(static(x), op(x))

    @pytest.mark.parametrize(("affine", "track"), [(True, False), (False, True), (False, False)])
    def test_static_norm_without_parameters_or_statistics(self, affine, track):
        op = SlicedBatchNorm2d(4, affine=affine, track_running_stats=track)
        x = torch.randn(3, 4, 5, 5)
        torch.testing.assert_close(op.to_static_op()(x), op(x))


class TestGroups:
    @pytest.mark.parametrize("arguments", [(8, 16, 3, 2), (8, 8, 3, 4), (8, 16, 3, 8)])
    def test_grouped_conv_is_refused(self, arguments):
        *shape, groups = arguments
        with pytest.raises(ValueError, match=f"has {groups} groups for 8 -> {shape[1]} channels"):
            SlicedConv2d(*shape, groups=groups)

    def test_depthwise_and_ordinary(self):
        assert SlicedConv2d(8, 8, 3, groups=8).is_depthwise
        assert not SlicedConv2d(8, 8, 3).is_depthwise
        assert not SlicedConv2d(1, 1, 3).is_depthwise


class TestPrefixMutableChannel:
    def test_choices(self):
        mutable = PrefixMutableChannel(24, {16: 0.25, 24: 0.75}, alias="stage")
        assert mutable.candidate_choices == [16, 24] and mutable.current_choice == 24
        assert mutable.probabilities == (0.25, 0.75)
        mutable.current_choice = 16
        assert mutable.current_choice == mutable.activated_channels == 16
        assert mutable.current_mask.tolist() == [True] * 16 + [False] * 8
        with pytest.raises(ValueError, match="stage = 20 is not a width"):
            mutable.current_choice = 20
        assert mutable.current_choice == 16
        assert not mutable.state_dict()

    def test_expanded(self):
        mutable = PrefixMutableChannel(24, {16: 0.25, 24: 0.75}, alias="stage")
        hidden = mutable * 6
        assert hidden.current_choice == 144 and hidden.current_mask.sum() == 144
        mutable.current_choice = 16
        assert hidden.current_choice == 96 and hidden.current_mask.sum() == 96

    def test_largest_must_be_the_full_network(self):
        with pytest.raises(ValueError, match="stage: the largest width 16 must be the full network's 24"):
            PrefixMutableChannel(24, {8: 0.5, 16: 0.5}, alias="stage")

    def test_choices_in_any_order(self):
        mutable = PrefixMutableChannel(24, {24: 0.75, 16: 0.25}, alias="stage")
        assert dict(zip(mutable.candidate_choices, mutable.probabilities, strict=True)) == {16: 0.25, 24: 0.75}


def test_depthwise_keeps_float32_under_cpu_autocast():
    """torch's bfloat16 gradient of a depthwise weight is not even the same twice on a CPU, and sometimes NaN."""
    torch.manual_seed(0)
    conv = SlicedConv2d(16, 16, 3, stride=2, padding=1, groups=16)
    images = torch.randn(2, 16, 4, 4)
    expected = conv(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = conv(images)
    assert output.dtype is torch.float32 and torch.equal(output, expected)
