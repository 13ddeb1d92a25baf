from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "converters" / "pssnet.py"

# As the authors' program writes it: argv is rows, pickle, protocol, kind of number.
PICKLE = """
import collections, json, pickle, sys
import numpy
names = "block_type, in_size, cin, cout, cmid, kernel_size, stride, padding"
BlockCfg = collections.namedtuple("BlockCfg", names)
number = getattr(numpy, sys.argv[4], float)
table = {BlockCfg(*row[:-1]): number(row[-1]) for row in json.load(open(sys.argv[1]))}
pickle.dump(table, open(sys.argv[2], "wb"), protocol=int(sys.argv[3]))
"""


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


@pytest.fixture(scope="session")
def write_pickle(tmp_path_factory):
    """``write_pickle(rows)``: a table in the authors' format, made by another process."""

    def write(rows, protocol=4, number="float64"):
        folder = tmp_path_factory.mktemp("pickle")
        (folder / "rows.json").write_text(json.dumps(rows))
        path = folder / "theirs.pkl"
        command = [sys.executable, "-c", PICKLE, folder / "rows.json", path, str(protocol), number]
        subprocess.run(command, check=True)
        return path

    return write
