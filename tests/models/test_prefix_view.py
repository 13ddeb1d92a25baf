import pytest
import torch

from pss_razor.models.dynamic_ops.prefix_view import prefix_view


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [1, 3])
def test_values_and_gradient_are_those_of_a_slice(memory_format, kernel):
    weight = torch.randn(8, 6, kernel, kernel).to(memory_format=memory_format).requires_grad_()
    other = weight.detach().clone().requires_grad_()
    view, sliced = prefix_view(weight, 5, 4), other[:5, :4]
    assert torch.equal(view, sliced) and view.data_ptr() == weight.data_ptr()
    factor = torch.randn(5, 4, kernel, kernel)
    (view * factor).sum().backward()
    (sliced * factor).sum().backward()
    assert torch.equal(weight.grad, other.grad)
    # What DDP's buckets and fused optimizers want.
    assert weight.grad.stride() == weight.stride()


def test_full_width_is_the_tensor_itself():
    weight = torch.randn(8, 6, 3, 3)
    assert prefix_view(weight, 8, 6) is weight
    assert prefix_view(weight, 8) is weight


def test_of_a_tensor_inside_another():
    storage = torch.arange(24.0).view(4, 6)
    assert torch.equal(prefix_view(storage[1:], 2, 3), storage[1:3, :3])
