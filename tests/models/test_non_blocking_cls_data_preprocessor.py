"""The data preprocessor gives what mmcls' own gives, and does not wait for the device."""

import copy

import pytest
import torch
from fake_cuda import CUDA, FakeCUDA

from pss_razor.models import NonBlockingClsDataPreprocessor

from mmcls.models.utils import ClsDataPreprocessor
from mmcls.structures import ClsDataSample

SETTINGS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def make_batch(one_tensor):
    images = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    samples = [ClsDataSample().set_gt_label([3]), *(ClsDataSample().set_gt_label(label) for label in (0, 9, 1))]
    return {"inputs": images if one_tensor else list(images), "data_samples": samples}


@pytest.mark.parametrize("one_tensor", [True, False])
@pytest.mark.parametrize("options", [{}, dict(to_onehot=True, num_classes=10)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_equals_that_of_mmcls(one_tensor, options, device):
    batch = make_batch(one_tensor)
    theirs = ClsDataPreprocessor(**SETTINGS, **options)(copy.deepcopy(batch), True)
    with FakeCUDA():
        ours = NonBlockingClsDataPreprocessor(**SETTINGS, **options).to(device)(batch, True)
        values = [ours["inputs"], *(sample.gt_label.label for sample in ours["data_samples"])]
        assert all(value.device.type == device for value in values)
        assert torch.equal(ours["inputs"].cpu(), theirs["inputs"])
        for our, their in zip(ours["data_samples"], theirs["data_samples"], strict=True):
            assert our.gt_label.keys() == their.gt_label.keys()
            for name, value in their.gt_label.items():
                assert torch.equal(our.gt_label.get(name).cpu(), value)


@pytest.mark.parametrize("kind", [ClsDataPreprocessor, NonBlockingClsDataPreprocessor])
def test_waits_for_nothing(kind):
    """Nor where a batch comes a second time, as in BN calibration, which keeps it; mmcls' own does wait."""
    with FakeCUDA() as cuda:
        preprocessor = kind(**SETTINGS).to("cuda")
        batch = make_batch(True)
        batch["inputs"] = batch["inputs"].pin_memory()
        cuda.take()
        for _ in range(2):
            assert preprocessor(batch, True)["inputs"].device == CUDA
        assert (not cuda.take()) == (kind is NonBlockingClsDataPreprocessor)


def test_without_labels():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for batch in ({"inputs": images}, {"inputs": images, "data_samples": [ClsDataSample(), ClsDataSample()]}):
        with FakeCUDA():
            assert NonBlockingClsDataPreprocessor().to("cuda")(batch)["inputs"].device == CUDA
