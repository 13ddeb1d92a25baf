"""Search, retraining and test of Cream on digits through the tools, a few iterations each."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_search_retrain_test(call, tmp_path):
    def run(*arguments):
        done = call(*arguments)
        assert done.code == 0, done.out[-2000:] + done.err[-2000:]

    search, retrain = tmp_path / "search", tmp_path / "retrain"
    short = ["train_dataloader.batch_size=16", "train_dataloader.dataset.indices=48", "train_cfg.max_epochs=2"]
    config = "cream_supernet_digits"
    hook = ["default_hooks.path_board.meta_start_epoch=1", "default_hooks.path_board.update_iter=2"]
    run("train.py", config, "--work-dir", search, "--cfg-options", *short, *hook)
    assert len(json.loads((search / "board.json").read_text())) == 3
    run("test.py", config, search / "epoch_2.pth", "--work-dir", search, "--out", search / "metrics.json")

    config = "cream_subnet_digits"
    found = f"model.fix_subnet={search / 'best_fix_subnet.yaml'}"
    run("train.py", config, "--work-dir", retrain, "--cfg-options", *short, "train_cfg.val_interval=2", found)
    checkpoint, out = retrain / "epoch_2.pth", retrain / "metrics.json"
    run("test.py", config, checkpoint, "--work-dir", retrain, "--out", out, "--cfg-options", found)
    assert 0 < json.loads(out.read_text())["accuracy/top1"] <= 100
