import pytest
import torch

from pss_razor.slices import dense, gradients_in_place, part_of, prefix_view


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


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_added_in_place_are_the_same_bits(memory_format):
    weight = torch.randn(8, 6, 3, 3).to(memory_format=memory_format).requires_grad_()
    other = weight.detach().clone().requires_grad_()
    factors = [torch.randn(8, 6, 3, 3), torch.randn(5, 4, 3, 3), torch.randn(2, 6, 3, 3)]
    for whole, enabled in ((weight, True), (other, False)):
        for factor in factors:
            with gradients_in_place(enabled):
                (prefix_view(whole, *factor.shape[:2]) * factor).sum().backward()
                if whole.shape != factor.shape:  # used twice in one pass
                    (prefix_view(whole, *factor.shape[:2]) * factor).sum().backward()
    assert torch.equal(weight.grad, other.grad)


def test_gradients_in_place_make_no_tensor_of_the_whole_size():
    weight = torch.randn(512, 512).requires_grad_()
    weight.grad = torch.zeros_like(weight)
    kept = weight.grad
    with gradients_in_place():
        part = prefix_view(weight, 16, 16)
        part.backward(torch.ones(16, 16))
    assert part.grad_fn is None and part.grad.data_ptr() == kept.data_ptr() == weight.grad.data_ptr()
    assert weight.grad[:16, :16].eq(1).all() and weight.grad.sum() == 256


def test_a_part_of_a_part():
    weight = torch.randn(8, 6).requires_grad_()
    weight.grad = torch.zeros_like(weight)
    with gradients_in_place():
        inner = part_of(prefix_view(weight, 5), lambda part: part.narrow(1, 2, 3))
        inner.backward(torch.ones(5, 3))
    assert weight.grad[:5, 2:5].eq(1).all() and weight.grad.sum() == 15


def test_without_a_gradient_or_with_hooks_the_parameter_itself_gets_it():
    first = torch.randn(8, 6).requires_grad_()
    hooked = torch.randn(8, 6).requires_grad_()
    hooked.grad = torch.zeros_like(hooked)
    seen = []
    hooked.register_hook(lambda gradient: seen.append(gradient.shape))
    watched = torch.randn(8, 6).requires_grad_()
    watched.grad = torch.zeros_like(watched)
    watched.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.shape))
    with gradients_in_place():
        for weight in (first, hooked, watched):
            prefix_view(weight, 2, 2).sum().backward()
            assert weight.grad.sum() == 4
    assert seen == [(8, 6), (8, 6)]


def test_without_gradients_wanted_it_is_a_view():
    weight = torch.randn(8, 6).requires_grad_()
    weight.grad = torch.zeros_like(weight)
    buffer = torch.randn(8)
    with gradients_in_place():
        with torch.no_grad():
            assert prefix_view(weight, 2)._is_view() and prefix_view(weight, 2).grad is None
        assert prefix_view(buffer, 2).data_ptr() == buffer.data_ptr()
    assert prefix_view(weight, 2).grad_fn is not None  # outside of the context


@pytest.mark.parametrize("kernel, groups_of", [(1, 6), (3, 6), (3, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_dense_weight_has_the_memory_format_of_the_whole(kernel, groups_of, memory_format):
    weight = torch.randn(8, groups_of, kernel, kernel).to(memory_format=memory_format)
    part = dense(prefix_view(weight, 5, min(4, groups_of)))
    assert torch.equal(part, weight[:5, :4])
    whole = torch.empty(part.shape).to(memory_format=memory_format)
    assert part.stride() == whole.stride() or groups_of == 1  # a view of whole filters is dense as it is
    assert dense(weight) is weight


def test_a_dense_weight_of_other_dimensions():
    assert dense(prefix_view(torch.randn(8, 6, 3), 5, 4)).is_contiguous()
