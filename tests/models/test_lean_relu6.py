import pytest
import torch
from torch import nn

from pss_razor.models import LeanReLU6


def run(activation: nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Output and gradients behind a BN, with values at and beyond both ends."""
    norm = nn.BatchNorm2d(3).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 4.0, 0.0]))
        norm.bias.copy_(torch.tensor([0.5, 3.0, 6.0]))  # the last channel is 6 everywhere
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    y = activation(norm(x))
    y.mul(torch.arange(y.numel(), dtype=dtype).view_as(y)).sum().backward()
    return y, x.grad, norm.weight.grad, norm.bias.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equals_relu6_to_the_bit(dtype):
    for ours, theirs in zip(run(LeanReLU6(inplace=True), dtype), run(nn.ReLU6(), dtype), strict=True):
        assert torch.equal(ours, theirs)


def test_stores_nothing_but_its_result():
    x = torch.randn(2, 3, requires_grad=True).exp()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        saved: list[torch.Tensor] = []
        y = LeanReLU6(inplace=True)(x)
    assert y.data_ptr() == x.data_ptr()
    assert [t.data_ptr() for t in saved] == [y.data_ptr()]


def test_inplace_false_leaves_the_input():
    x = torch.tensor([-1.0, 7.0])
    assert LeanReLU6(inplace=False)(x).tolist() == [0, 6] and x.tolist() == [-1, 7]


def test_static_op():
    static = LeanReLU6(inplace=True).to_static_op()
    assert type(static) is nn.ReLU6 and static.inplace


def test_mobilenet_v2_has_it_and_another_on_request(small_mbv2, build_small):
    kinds = {type(m) for m in small_mbv2.modules() if isinstance(m, (nn.ReLU, nn.ReLU6))}
    assert kinds == {LeanReLU6}
    other = build_small(**{"architecture.backbone.act_cfg": dict(type="ReLU")})
    assert {type(m) for m in other.modules() if isinstance(m, (nn.ReLU, nn.ReLU6))} == {nn.ReLU}
