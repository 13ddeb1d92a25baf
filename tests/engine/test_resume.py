"""A training that is stopped and resumed equals, bit by bit, one that never stopped."""

from __future__ import annotations

import shutil

import pytest
import torch

from pss_razor.engine import find_latest_checkpoint
from pss_razor.registry import TRANSFORMS

from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook


def resume(make_runner, work_dir, checkpoint, **options):
    make_runner(work_dir, {"load_from": str(checkpoint), "resume": True, **options}).train()


@pytest.mark.parametrize("epoch", [1, 2])
def test_resumed_equals_never_stopped(make_runner, straight, tmp_path, assert_same_training, epoch):
    # The checkpoint is all that a stopped training leaves; ``straight`` wrote it before its own validation.
    resume(make_runner, tmp_path, straight / f"epoch_{epoch}.pth")
    assert_same_training(straight / "epoch_3.pth", tmp_path / "epoch_3.pth")


def test_the_comparison_sees_differences(make_runner, straight, tmp_path, assert_same_training):
    make_runner(tmp_path, {"randomness.seed": 1, "val_cfg": None, "val_dataloader": None, "val_evaluator": None}).train()
    with pytest.raises(AssertionError):
        assert_same_training(straight / "epoch_3.pth", tmp_path / "epoch_3.pth")


def test_training_is_long_enough_to_prove_it(straight):
    # Resuming can only go wrong where there is something to lose: pools that are drawn from, momentum, visits.
    state = torch.load(straight / "epoch_3.pth", weights_only=True)
    entries = [entry for pools in state["pss"]["pools"].values() for pool in pools.values() for entry in pool]
    assert max(entry["visits"] for entry in entries) >= 3
    assert all(s["momentum_buffer"].abs().sum() > 0 for s in state["optimizer"]["state"].values())


def test_evaluation_does_not_disturb_training(make_runner, straight, tmp_path, assert_same_training):
    make_runner(tmp_path, {"val_cfg": None, "val_dataloader": None, "val_evaluator": None}).train()
    assert_same_training(straight / "epoch_3.pth", tmp_path / "epoch_3.pth")


class StopInEpochTwo(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == 1 and batch_idx == 3:
            raise KeyboardInterrupt


def test_stopped_in_the_middle_of_an_epoch(make_runner, straight, tmp_path, assert_same_training):
    runner = make_runner(tmp_path)
    runner.register_hook(StopInEpochTwo())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    latest = find_latest_checkpoint(tmp_path)
    assert latest == tmp_path / "epoch_1.pth"
    resume(make_runner, tmp_path, latest)
    assert_same_training(straight / "epoch_3.pth", tmp_path / "epoch_3.pth")


def test_leftovers_of_a_killed_process_do_not_disturb(make_runner, straight, tmp_path, assert_same_training):
    shutil.copy(straight / "epoch_2.pth", tmp_path)
    (tmp_path / ".epoch_3.pth.abc123").write_bytes((straight / "epoch_3.pth").read_bytes()[:1000])
    (tmp_path / "last_checkpoint").touch()
    latest = find_latest_checkpoint(tmp_path)
    assert latest == tmp_path / "epoch_2.pth"
    resume(make_runner, tmp_path, latest)
    assert_same_training(straight / "epoch_3.pth", tmp_path / "epoch_3.pth")
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_3.pth")


@pytest.mark.parametrize(
    ("names", "latest"),
    [
        ([], None),
        (["last_checkpoint", "best_top1_epoch_30.pth", "epoch_x.pth", ".epoch_4.pth.tmp"], None),
        (["epoch_9.pth", "epoch_10.pth"], "epoch_10.pth"),
        (["iter_900.pth", "iter_1000.pth"], "iter_1000.pth"),
    ],
)
def test_find_latest_checkpoint(tmp_path, names, latest):
    for name in names:
        (tmp_path / name).touch()
    found = find_latest_checkpoint(tmp_path)
    assert (found and found.name) == latest


def test_find_latest_checkpoint_without_a_folder(tmp_path):
    assert find_latest_checkpoint(tmp_path / "missing") is None


def test_two_checkpoints_are_kept_by_default(make_runner, tmp_path):
    # mmengine deletes the oldest before it writes the new one, so that one alone would be none for a moment.
    make_runner(tmp_path, {"default_hooks.checkpoint.max_keep_ckpts": 2}).train()
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["epoch_2.pth", "epoch_3.pth"]


@TRANSFORMS.register_module()
class RecordRandomNumbers(BaseTransform):
    """Puts the random numbers of a worker into the image, where the training can see them."""

    def transform(self, results):
        results["img"] = results["img"].copy()
        results["img"][0, 0] = torch.randint(256, (3,)).numpy()
        return results


class RecordImages(Hook):
    def __init__(self):
        self.sums = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.sums.append([int(image.sum()) for image in data_batch["inputs"]])


@pytest.mark.slow
def test_workers_resume_exactly_with_epoch_worker_seed(make_runner, tmp_path, assert_same_training):
    options = {
        "train_dataloader.num_workers": 2,
        "train_dataloader.persistent_workers": False,
        "train_dataloader.worker_init_fn": {"type": "epoch_worker_seed"},
        "val_dataloader.num_workers": 2,
    }
    runner = make_runner(tmp_path / "straight", options)
    record = RecordImages()
    runner.register_hook(record)
    runner.train()
    # The same images in the same epoch order would only be seen again if the workers repeated their random numbers.
    sums = [sorted(sum(record.sums[epoch * 6 : epoch * 6 + 6], [])) for epoch in range(3)]
    assert sums[0] != sums[1] != sums[2] != sums[0]
    for epoch in (1, 2):
        work_dir = tmp_path / f"resumed_{epoch}"
        resume(make_runner, work_dir, tmp_path / "straight" / f"epoch_{epoch}.pth", **options)
        assert_same_training(tmp_path / "straight" / "epoch_3.pth", work_dir / "epoch_3.pth")
