"""A loader that cannot work is refused before anything is trained, by its name."""

from __future__ import annotations

import pytest
import torch
from small_network import SIDE, digits, part, small_supernet, train_loader
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, TensorDataset

from pss_razor.core import ConfigError, DataError
from pss_razor.plain.labelled_loader import batch_size_of, check_labelled_loader, check_last_batch


@pytest.fixture(scope="module")
def supernet():
    return small_supernet()


class Stream(IterableDataset):
    def __iter__(self):
        yield from part(0, 8)


class AsTable(TensorDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return {"pixel_values": image, "labels": label}


def tensors(images=None, labels=None, transform=None):
    own, its = digits()
    images, labels = own[:8] if images is None else images, its[:8] if labels is None else labels
    return DataLoader(TensorDataset(images, labels), 4)


class WithTargets(TensorDataset):
    """As torchvision's datasets say what labels there are."""

    def __init__(self, targets, target_transform=None):
        super().__init__(*part(0, 8).tensors)
        self.targets = targets
        self.target_transform = target_transform


@pytest.mark.parametrize(
    "loader",
    [
        train_loader(),
        train_loader(shuffle=False, num_workers=2),
        DataLoader(part(0, 8), batch_sampler=BatchSampler(SequentialSampler(part(0, 8)), 4, False)),
        tensors(labels=torch.rand(8, 10)),
        DataLoader([part(0, 8)[i] for i in range(8)], 4),
        DataLoader(WithTargets(list(range(10))), 4),
        DataLoader(WithTargets([10, 11], target_transform=lambda label: label - 10), 4),
    ],
)
def test_good(supernet, loader):
    check_labelled_loader(supernet, loader, "train_loader")


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (part(0, 8), "train_loader is a TensorDataset; give a torch.utils.data.DataLoader"),
        (DataLoader(Stream(), 4), "train_loader is a DataLoader of an iterable dataset"),
        (DataLoader(part(0, 8), batch_size=None), "batch_size=None; let the loader make the batches"),
        (
            DataLoader(AsTable(*part(0, 8).tensors), 4),
            r"yields a dict with \['labels', 'pixel_values'\]; make it yield",
        ),
        (DataLoader(TensorDataset(digits()[0][:8]), 4), "yields a list; make it yield"),
        (tensors(images=torch.zeros(8, 3, SIDE, SIDE, dtype=torch.uint8)), "are a tensor of torch.uint8; .* ToTensor"),
        (tensors(images=torch.zeros(8, 3, 20, 20)), r"images are \(3, 20, 20\) .* was converted for \(3, 16, 16\)"),
        (tensors(images=torch.zeros(8, 3, 12, 12)), r"resize them in the transforms"),  # a resolution, not the largest
        (tensors(images=torch.zeros(8, 1, SIDE, SIDE)), r"images are \(1, 16, 16\)"),
        (tensors(labels=torch.zeros(8, 1, dtype=torch.int64)), r"labels are torch.int64 \(1, 1\); they must be"),
        (tensors(labels=torch.rand(8, 7)), r"class probabilities \(N, 10\)"),
    ],
)
def test_of_another_kind(supernet, loader, message):
    with pytest.raises(ConfigError, match=message):
        check_labelled_loader(supernet, loader, "train_loader")


def test_an_image_as_it_is_in_a_file(supernet):
    loader = DataLoader([("image", 3)] * 4, 2)
    with pytest.raises(ConfigError, match=r"the images are a (list|tuple); the network takes floats"):
        check_labelled_loader(supernet, loader, "train_loader")


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(part(0, 8), 16, drop_last=True), "yields no batch: it has 8 images, batch_size is 16"),
        (DataLoader(part(0, 0), 16), "yields no batch: it has 0 images"),
        (DataLoader(WithTargets(list(range(11))), 4), "its labels are 0 to 10, the network has 10 outputs; convert"),
        (DataLoader(WithTargets(torch.arange(-1, 9)), 4), "its labels are -1 to 8"),
    ],
)
def test_bad_data(supernet, loader, message):
    with pytest.raises(DataError, match=message):
        check_labelled_loader(supernet, loader, "val_loader")


def test_looking_changes_no_random_state(supernet):
    class Noisy(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + torch.randn(()), label

    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    check_labelled_loader(supernet, train_loader(Noisy(*part(0, 8).tensors), batch_size=4), "train_loader")
    assert torch.equal(torch.randn(2), expected)


class TestLastBatch:
    @pytest.mark.parametrize(
        "loader",
        [
            train_loader(part(0, 33)),  # drops the last
            train_loader(part(0, 34), drop_last=False),
            train_loader(part(0, 32), drop_last=False),
            DataLoader(part(0, 33), batch_sampler=BatchSampler(SequentialSampler(part(0, 33)), 16, True)),
            DataLoader(part(0, 33), 16, sampler=list(range(32))),
        ],
    )
    def test_has_several_images(self, loader):
        check_last_batch(loader, "train_loader")
        assert batch_size_of(loader) == 16 and min(len(labels) for _, labels in loader) > 1

    @pytest.mark.parametrize(
        "loader",
        [
            train_loader(part(0, 33), drop_last=False),
            train_loader(part(0, 8), batch_size=1),
            DataLoader(part(0, 33), batch_sampler=BatchSampler(SequentialSampler(part(0, 33)), 16, False)),
        ],
    )
    def test_has_one(self, loader):
        assert min(len(labels) for _, labels in loader) == 1
        with pytest.raises(ConfigError, match=r"train_loader: the last batch of \d+ has one image"):
            check_last_batch(loader, "train_loader")

    def test_of_unknown_size(self):
        with pytest.raises(ConfigError, match="the list of a loader has no batch_size"):
            batch_size_of(DataLoader(part(0, 8), batch_sampler=[[0, 1], [2, 3]]))


def test_several_processes(supernet):
    sampler = torch.utils.data.DistributedSampler(part(0, 8), num_replicas=2, rank=0)
    check_labelled_loader(supernet, DataLoader(part(0, 8), 2, sampler=sampler), "loader", processes=2)
    for options in (dict(shuffle=True), dict(sampler=sampler)):
        with pytest.raises(ConfigError, match=f"gives all {4} processes all images"):
            check_labelled_loader(supernet, DataLoader(part(0, 8), 2, **options), "loader", processes=4)
