from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "converters" / "pssnet.py"


@pytest.fixture
def convert(monkeypatch, capfd):
    """``convert("checkpoint", IN, OUT)`` runs the tool in this process; returns ``code``, ``out`` and ``err``."""

    def run(*args: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, args)])
        capfd.readouterr()
        message: object = 0
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as exit_:
            message = exit_.code
        out, err = capfd.readouterr()
        if isinstance(message, str):  # what Python does with the argument of sys.exit
            message, err = 1, f"{err}{message}\n"
        return SimpleNamespace(code=message, out=out, err=err)

    return run


@pytest.fixture
def refuses(convert, tmp_path):
    """``refuses(command, IN, word, …)``: one line on stderr, and what was at OUT is still there."""

    def check(command: str, source: Path, *words: str, options: tuple = ()) -> None:
        out = tmp_path / "kept"
        out.write_text("before")
        done = convert(command, source, out, *options)
        assert done.code == 1 and "Traceback" not in done.err
        assert [line for line in done.err.splitlines() if line.startswith("error:")] == [done.err.splitlines()[-1]]
        for word in words:
            assert word in done.err.splitlines()[-1]
        assert out.read_text() == "before"
        assert not list(tmp_path.glob(".kept*")) and not (tmp_path / "executed").exists()

    return check
