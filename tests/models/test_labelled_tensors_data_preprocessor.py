from __future__ import annotations

import pytest
import torch
from fake_cuda import FakeCUDA

from pss_razor.core import DataError
from pss_razor.models import LabelledTensorsDataPreprocessor


def test_labels():
    images, labels = torch.randn(3, 3, 4, 4), torch.tensor([2, 0, 4])
    batch = LabelledTensorsDataPreprocessor(5)([images, labels])
    assert torch.equal(batch["inputs"], images)
    found = [sample.gt_label.label for sample in batch["data_samples"]]
    assert all(label.shape == (1,) and label.dtype == torch.int64 for label in found)
    assert torch.equal(torch.cat(found), labels)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_other_types(dtype):
    batch = LabelledTensorsDataPreprocessor(5)((torch.zeros(2, 3, 4, 4), torch.tensor([1, 3], dtype=dtype)))
    assert [int(sample.gt_label.label) for sample in batch["data_samples"]] == [1, 3]
    assert batch["data_samples"][0].gt_label.label.dtype == torch.int64


def test_class_probabilities():
    scores = torch.rand(3, 5).softmax(1)
    batch = LabelledTensorsDataPreprocessor(5)((torch.zeros(3, 3, 4, 4, dtype=torch.float64), scores))
    assert batch["inputs"].dtype == torch.float32
    assert torch.equal(torch.stack([sample.gt_label.score for sample in batch["data_samples"]]), scores)


@pytest.mark.parametrize(("labels", "wrong"), [([0, 5], 5), ([-1, 2], -1)])
def test_labels_that_are_no_classes(labels, wrong):
    with pytest.raises(DataError, match=f"an image has the label {wrong}; the network has 5 outputs"):
        LabelledTensorsDataPreprocessor(5)((torch.zeros(2, 3, 4, 4), torch.tensor(labels)))


def test_copies_do_not_wait():
    images, labels = torch.randn(3, 3, 4, 4), torch.tensor([2, 0, 4])
    with FakeCUDA() as cuda:
        preprocessor = LabelledTensorsDataPreprocessor(5).to("cuda")
        pinned = images.pin_memory()
        cuda.take()
        batch = preprocessor((pinned, labels))
        assert cuda.take() == []
        assert batch["inputs"].is_cuda and all(sample.gt_label.label.is_cuda for sample in batch["data_samples"])
