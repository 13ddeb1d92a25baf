"""Search, retraining and test of Cream on digits through the tools, a few iterations each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(tool, *arguments):
    command = [sys.executable, ROOT / "tools" / tool, *arguments]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_search_retrain_test(tmp_path):
    search, retrain = tmp_path / "search", tmp_path / "retrain"
    short = ["train_dataloader.batch_size=16", "train_dataloader.dataset.indices=48", "train_cfg.max_epochs=2"]
    config = "configs/nas/cream/cream_supernet_digits.py"
    hook = ["default_hooks.path_board.meta_start_epoch=1", "default_hooks.path_board.update_iter=2"]
    run("train.py", config, "--work-dir", search, "--cfg-options", *short, *hook)
    assert len(json.loads((search / "board.json").read_text())) == 3
    run("test.py", config, search / "epoch_2.pth", "--work-dir", search, "--out", search / "metrics.json")

    config = "configs/nas/cream/cream_subnet_digits.py"
    found = f"model.fix_subnet={search / 'best_fix_subnet.yaml'}"
    run("train.py", config, "--work-dir", retrain, "--cfg-options", *short, "train_cfg.val_interval=2", found)
    checkpoint, out = retrain / "epoch_2.pth", retrain / "metrics.json"
    run("test.py", config, checkpoint, "--work-dir", retrain, "--out", out, "--cfg-options", found)
    assert 0 < json.loads(out.read_text())["accuracy/top1"] <= 100
