"""The runtime on a GPU that is not there; ``fake_cuda.py`` says what this finds and what it misses."""

from __future__ import annotations

import torch
from fake_cuda import FakeCUDA

from pss_razor.deploy import AdaptiveModel, save_bundle


def test_a_pass_and_a_switch_do_not_wait(supernet_subnets, tmp_path):
    bundle_file = tmp_path / "bundle.safetensors"
    save_bundle(bundle_file, supernet_subnets[2:4], {})
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    expected = AdaptiveModel.load(bundle_file)
    with FakeCUDA() as cuda:
        model = AdaptiveModel.load(bundle_file, device="cuda")
        on_device = images.to("cuda")
        cuda.take()
        for subnet in model.subnets:
            model.use(subnet.name)
            logits = model(on_device)
            model.warm_up(batch_size=2)
            assert logits.is_cuda and cuda.take() == []
            expected.use(subnet.name)
            assert torch.equal(logits.cpu(), expected(images))
            cuda.take()
