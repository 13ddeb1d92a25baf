"""The shell scripts: several processes on this machine, and Slurm with an ``srun`` that only notes its arguments."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest
import torch

from pss_razor.checkpoints import read_checkpoint

SCRIPTS = {
    "dist_train.sh": ["CONFIG", "N"],
    "dist_test.sh": ["CONFIG", "CHECKPOINT", "N"],
    "slurm_train.sh": ["PARTITION", "JOB_NAME", "CONFIG", "WORK_DIR"],
    "slurm_test.sh": ["PARTITION", "JOB_NAME", "CONFIG", "CHECKPOINT"],
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("given", [0, -1])
def test_usage(spawn, script, given):
    names = SCRIPTS[script]
    done = spawn(f"tools/{script}", *(["x"] * (given if given >= 0 else len(names) + given)))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("usage:") and f"{script} {' '.join(names)} [options of" in done.stderr


@pytest.fixture
def srun(tmp_path):
    """A folder with an ``srun`` that writes one argument a line, and the file that it writes to."""
    folder = tmp_path / "bin with spaces"
    folder.mkdir()
    (folder / "srun").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/arguments"\n')
    (folder / "srun").chmod(0o755)
    return folder, tmp_path / "arguments"


def run_slurm(spawn, environment, srun, *args, **variables):
    done = spawn(*args, PATH=f"{srun[0]}:{environment['PATH']}", **variables)
    assert done.returncode == 0, done.stderr
    return srun[1].read_text().splitlines()


def test_slurm_train(spawn, environment, srun, root):
    args = run_slurm(
        spawn,
        environment,
        srun,
        "tools/slurm_train.sh",
        "part",
        "my job",
        "c.py",
        "w d",
        "--amp",
        "--cfg-options",
        "a=b c",
    )
    python = args.index(environment["PYTHON"])
    assert args[:python] == [
        *("-p", "part", "--job-name=my job", "--gres=gpu:8", "--ntasks=8", "--ntasks-per-node=8"),
        *("--cpus-per-task=5", "--kill-on-bad-exit=1"),
    ]
    assert args[python + 1 :] == [
        *("-m", "pss_razor.host_settings", environment["PYTHON"]),
        *("-u", f"{root}/tools/train.py", "c.py", "--work-dir", "w d", "--amp", "--cfg-options", "a=b c"),
        *("--launcher", "slurm"),
    ]


def test_slurm_test(spawn, environment, srun, root):
    variables = {"GPUS": "4", "GPUS_PER_NODE": "2", "CPUS_PER_TASK": "3", "SRUN_ARGS": "--time=10 --qos=low"}
    args = run_slurm(
        spawn, environment, srun, "tools/slurm_test.sh", "p", "j", "c.py", "k.pth", "--out", "r.json", **variables
    )
    python = args.index(environment["PYTHON"])
    assert args[:python] == [
        *("-p", "p", "--job-name=j", "--gres=gpu:2", "--ntasks=4", "--ntasks-per-node=2"),
        *("--cpus-per-task=3", "--kill-on-bad-exit=1", "--time=10", "--qos=low"),
    ]
    assert args[python + 1 :] == [
        *("-m", "pss_razor.host_settings", environment["PYTHON"]),
        *("-u", f"{root}/tools/test.py", "c.py", "k.pth", "--out", "r.json", "--launcher", "slurm"),
    ]


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.mark.slow
def test_train_then_test_on_two_processes(spawn, tiny, tmp_path):
    settings = ["train_cfg.max_epochs=2", "train_dataloader.batch_size=8"]
    done = spawn("tools/dist_train.sh", tiny, 2, "--work-dir", tmp_path, "--cfg-options", *settings, PORT=free_port())
    assert done.returncode == 0, done.stderr[-3000:]
    state = read_checkpoint(tmp_path / "epoch_2.pth", needs_pools=True)
    assert len(state["random_state"]["processes"]) == 2  # the random states of both
    done = spawn("tools/dist_test.sh", tiny, tmp_path / "epoch_2.pth", 2, "--work-dir", tmp_path, PORT=free_port())
    assert done.returncode == 0, done.stderr[-3000:]
    together = json.loads((tmp_path / "pool_results.json").read_text())
    assert together["dataset_size"] == 48
    # Every image counts once, whatever process it was on.
    for record in together["subnets"]:
        correct = record["metrics"]["accuracy/top1"] * 48 / 100
        assert correct == pytest.approx(round(correct), abs=1e-3)


@pytest.mark.slow
def test_resumed_on_two_processes_equals_never_stopped(spawn, tiny, tmp_path):
    args = [tiny, 2, "--no-validate", "--cfg-options", "train_cfg.max_epochs=2", "train_dataloader.batch_size=8"]
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    for options in (["--work-dir", straight], ["--work-dir", resumed, "--resume", straight / "epoch_1.pth"]):
        done = spawn("tools/dist_train.sh", *args, *options, PORT=free_port())
        assert done.returncode == 0, done.stderr[-3000:]
    a, b = (read_checkpoint(folder / "epoch_2.pth", needs_pools=True) for folder in (straight, resumed))
    assert a["pss"]["pools"] == b["pss"]["pools"] and a["pss"]["generator"] == b["pss"]["generator"]
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name


@pytest.mark.slow
def test_two_nodes(root, environment, tiny, tmp_path):
    """Two launches that find each other, as on two machines."""
    environment = {**environment, "NNODES": "2", "PORT": free_port(), "MASTER_ADDR": "127.0.0.1"}
    options = ["--work-dir", str(tmp_path), "--no-validate", "--cfg-options", "train_cfg.max_epochs=1"]
    nodes = [
        subprocess.Popen(
            [str(root / "tools" / "dist_train.sh"), tiny, "1", *options, "train_dataloader.batch_size=8"],
            env={**environment, "NODE_RANK": str(rank)},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for node in nodes:
        _, err = node.communicate(timeout=200)
        assert node.returncode == 0, err[-3000:]
    state = read_checkpoint(tmp_path / "epoch_1.pth", needs_pools=True)
    assert len(state["random_state"]["processes"]) == 2 and state["meta"]["iter"] == 6
