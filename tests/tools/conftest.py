from __future__ import annotations

import contextlib
import itertools
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "tiny" / "tiny_supernet.py"
_names = itertools.count()


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tiny() -> str:
    """The small config that the engine's tests use."""
    return str(TINY)


@pytest.fixture
def write_config(tmp_path):
    """``write_config("train_cfg = dict(max_epochs=2)")``: a config file on top of the tiny one."""

    def write(body: str, name: str = "config.py") -> str:
        path = tmp_path / name
        path.write_text(f'_base_ = "{TINY}"\n{body}\n')
        return str(path)

    return write


@pytest.fixture
def call(monkeypatch, capfd, tmp_path):
    """``call("train.py", CONFIG, …)`` runs a tool in this process, which spares the seconds of importing torch.

    Returns ``code``, ``out`` and ``err`` as a shell would see them.
    """

    def run(tool: str, *args: object) -> SimpleNamespace:
        args = [str(arg) for arg in args]
        # mmengine keeps logs and histories by the name of the run, which is the second when it starts.
        name = f"experiment_name=tool_{next(_names)}"
        if "--cfg-options" in args:
            args.insert(args.index("--cfg-options") + 1, name)
        else:
            args += ["--cfg-options", name]
        if "--work-dir" not in args:
            args += ["--work-dir", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", [tool, *args])
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        capfd.readouterr()
        message = code = None
        with contextlib.suppress(SystemExit):
            try:
                runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
            except SystemExit as exit_:
                message = exit_.code
                raise
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        out, err = capfd.readouterr()
        # What Python does with the argument of sys.exit: a text goes to stderr and the code is 1.
        code = message if isinstance(message, int) else int(message is not None)
        if isinstance(message, str):
            err += message + "\n"
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture
def run_tool(root, monkeypatch, capfd):
    """``run_tool("plot_main_result.py", …)``: a tool without a config in this process, as a shell would see it."""

    def run(tool: str, *args: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", [tool, *map(str, args)])
        capfd.readouterr()
        code = None
        try:
            runpy.run_path(str(root / "tools" / tool), run_name="__main__")
        except SystemExit as exit_:
            code = exit_.code
        out, err = capfd.readouterr()
        return SimpleNamespace(out=out, err=err + (code if isinstance(code, str) else ""), code=int(code is not None))

    return run


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of subprocesses: one thread each, and this Python."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    inherited = {key: value for key, value in os.environ.items() if key not in names}
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}


@pytest.fixture(scope="session")
def spawn(environment):
    """``spawn("tools/train.py", CONFIG, …)`` runs a command in a new process; a Python file with this Python."""

    def run(program: str, *args: object, **variables: str) -> subprocess.CompletedProcess:
        command = [str(ROOT / program), *map(str, args)]
        if program.endswith(".py"):
            command.insert(0, sys.executable)
        return subprocess.run(
            command, cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory) -> Path:
    """The checkpoint of a finished training."""
    from pss_razor.engine.launch import build_runner, load_config

    work_dir = tmp_path_factory.mktemp("trained")
    config = load_config(tiny, ["experiment_name=trained"], "none", str(work_dir))
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    build_runner(config).train()
    return work_dir / "epoch_3.pth"


@pytest.fixture
def build_algorithm_of():
    """``build_algorithm_of(CONFIG)``: the algorithm alone."""

    def build(path):
        from pss_razor.engine.launch import load_config
        from pss_razor.registry import MODELS

        return MODELS.build(load_config(path, None, "none", None).model)

    return build
