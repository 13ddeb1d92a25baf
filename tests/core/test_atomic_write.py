from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from pss_razor.core import atomic_write

fcntl = pytest.importorskip("fcntl")

# A process that stops at the moment when its temporary file is written and not yet renamed.
WRITER = """
    import os, signal, sys
    from pss_razor.core import atomic_write

    def stop(descriptor):
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        print("written", flush=True)
        sys.stdin.readline()

    os.fsync = stop
    atomic_write(sys.argv[1], b"by the other process")
"""


def start(path, how):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), how]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_a_killed_writer_leaves_is_removed_by_the_next_write(tmp_path):
    path, other = tmp_path / "file", tmp_path / "file.b"
    path.write_bytes(b"old")
    for target in (path, path, other):
        assert start(target, "kill").wait(60) == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert sum(name.endswith(".tmp") for name in os.listdir(tmp_path)) == 2  # the second killed one removed the first's
    atomic_write(path, b"new")
    left = [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    assert path.read_bytes() == b"new" and len(left) == 1 and left[0].startswith(".file.b.")
    atomic_write(other, b"new")
    assert sorted(os.listdir(tmp_path)) == ["file", "file.b"]


def test_what_a_living_writer_writes_stays(tmp_path):
    path = tmp_path / "file"
    writer = start(path, "wait")
    assert writer.stdout.readline() == "written\n"
    atomic_write(path, b"by this process")
    assert path.read_bytes() == b"by this process" and len(os.listdir(tmp_path)) == 2
    writer.communicate("\n", timeout=60)
    assert writer.returncode == 0 and path.read_bytes() == b"by the other process" and os.listdir(tmp_path) == ["file"]


def test_a_file_that_was_taken_for_a_leftover_is_made_again(tmp_path, monkeypatch):
    """Between its making and its locking, another process may find it unlocked."""
    lock = fcntl.flock
    made = []

    def flock(file, operation):
        if not made:
            made.extend(os.listdir(tmp_path))
            os.unlink(tmp_path / made[0])
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    atomic_write(tmp_path / "file", b"new")
    assert len(made) == 1 and os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"new"


def test_what_is_not_ours_stays(tmp_path):
    (tmp_path / "precious").write_bytes(b"x")
    (tmp_path / ".file.01234567.tmp").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / ".file.01234568.tmp")
    (tmp_path / ".file.tmp").write_bytes(b"x")
    (tmp_path / ".file.more.01234567.tmp").write_bytes(b"x")
    atomic_write(tmp_path / "file", b"new")
    assert len(os.listdir(tmp_path)) == 6


def test_without_locks(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".file.01234567.tmp").write_bytes(b"x")
    atomic_write(tmp_path / "file", b"new")
    assert sorted(os.listdir(tmp_path)) == [".file.01234567.tmp", "file"]
