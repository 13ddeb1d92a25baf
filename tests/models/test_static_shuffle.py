"""Subnets of MMRazor's ShuffleNetV2 supernet as static networks."""

import pytest
import torch

from pss_razor.models import StaticShuffle
from pss_razor.static import trace_static

from mmrazor.models.architectures.ops.shufflenet_series import ShuffleBlock, ShuffleXception


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("cls", [ShuffleBlock, ShuffleXception])
def test_equals_the_block(cls, stride):
    kernel = {} if cls is ShuffleXception else {"kernel_size": 5}
    block = cls(in_channels=16, out_channels=16 * stride, stride=stride, **kernel).eval()
    static = block.to_static_op()
    assert isinstance(static, StaticShuffle)
    images = torch.randn(3, 16, 10, 10)
    with torch.no_grad():
        torch.testing.assert_close(static(images), block(images), rtol=0, atol=0)


def test_traced_subnets_equal_the_supernet(build_algorithm):
    from pss_razor.export.exporter import WithoutResize

    algorithm = build_algorithm("pss_shufflenetv2_flops_digits").eval()
    side = algorithm.space.largest.get("resolution", algorithm.input_size)
    images = torch.randn(2, 3, side, side)
    for subnet in (algorithm.space.smallest, algorithm.space.largest):
        with algorithm.mutator.active(subnet), torch.no_grad():
            net = trace_static(WithoutResize(algorithm.architecture), side)
            torch.testing.assert_close(net(images), algorithm(images), rtol=1e-5, atol=1e-6)
