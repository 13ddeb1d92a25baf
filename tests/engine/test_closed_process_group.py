"""A command leaves its process group with nothing of it running: a thread of gloo's can abort a process at its end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("config", ["tiny_supernet", "tiny_retraining"])
def test_no_thread_is_left(config, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for command, checkpoint in [("train", []), ("test", [tmp_path / "epoch_1.pth"])]:
        arguments = [command, tmp_path / command, HERE.parent / "tiny" / f"{config}.py", *checkpoint]
        arguments += ["--work-dir", tmp_path, "--cfg-options", "train_cfg.max_epochs=1"]
        program = [*launcher, HERE / "two_processes_commands.py", *arguments]
        done = subprocess.run([str(part) for part in program], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        for rank in range(2):
            before, after = json.loads((tmp_path / f"{command}_{rank}.json").read_text())
            assert before > 0
            assert after == 0
