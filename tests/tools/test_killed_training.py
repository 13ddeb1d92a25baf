"""A training that is killed again and again, and resumed with ``--resume auto``, ends as if never disturbed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pss_razor.checkpoints import find_latest_checkpoint, read_checkpoint

CONFIG = """
custom_imports = dict(imports=["pss_razor.plugin", "die"], allow_failed_imports=False)
custom_hooks = [dict(type="DieHook")]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
train_cfg = dict(max_epochs=4)
param_scheduler = dict(end=4)
"""


def assert_same(a, b, path=""):
    if isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for x, y in zip(a, b, strict=True):
            assert_same(x, y, path)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, path


@pytest.mark.slow
def test_killed_at_every_bad_moment(root, environment, write_config, tmp_path):
    config = write_config(CONFIG)
    environment = {**environment, "PYTHONPATH": str(Path(__file__).parent)}

    def train(work_dir, die_at="", seconds=None):
        command = [sys.executable, "tools/train.py", config, "--work-dir", str(work_dir), "--resume", "auto"]
        process = subprocess.Popen(
            command,
            cwd=root,
            env={**environment, "DIE_AT": die_at},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        return process.returncode

    def latest():
        # Whatever has the name of a checkpoint is a complete one.
        for path in killed.glob("epoch_*.pth"):
            read_checkpoint(path, needs_pools=True)
        return find_latest_checkpoint(killed)

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert train(straight, seconds=120) == 0

    def has_leftover(name):
        return any(path.name.startswith(f".{name}") for path in killed.iterdir())

    assert train(killed, "write:epoch_1.pth") == -signal.SIGKILL
    assert latest() is None and has_leftover("epoch_1.pth")  # nothing to resume from: starts again
    assert train(killed, "iter:9") == -signal.SIGKILL
    assert latest().name == "epoch_1.pth"  # in the middle of the second epoch
    assert train(killed, "write:epoch_2.pth") == -signal.SIGKILL
    assert latest().name == "epoch_1.pth" and has_leftover("epoch_2.pth")
    assert train(killed, "renamed:epoch_2.pth") == -signal.SIGKILL
    assert latest().name == "epoch_2.pth"
    assert (killed / "last_checkpoint").read_text().endswith("epoch_1.pth")  # out of date
    assert train(killed, "pointer") == -signal.SIGKILL
    assert latest().name == "epoch_3.pth"
    assert (killed / "last_checkpoint").read_text() == ""
    with contextlib.suppress(StopIteration):
        for seconds in (random.uniform(1, 8), random.uniform(4, 8)):  # any moment, from the imports on
            if train(killed, seconds=seconds) == 0:
                raise StopIteration
            latest()
    assert train(killed, seconds=120) == 0
    assert latest().name == "epoch_4.pth"

    a, b = (read_checkpoint(folder / "epoch_4.pth", needs_pools=True) for folder in (straight, killed))
    assert a["meta"]["iter"] == b["meta"]["iter"] == 24
    for part in ("state_dict", "optimizer", "param_schedulers", "pss", "random_state"):
        assert_same(a[part], b[part], part)
    # A finished training that is asked to go on does nothing.
    modified = os.stat(killed / "epoch_4.pth").st_mtime_ns
    assert train(killed, seconds=120) == 0
    assert os.stat(killed / "epoch_4.pth").st_mtime_ns == modified
