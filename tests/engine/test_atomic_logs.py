"""mmengine's logger writes the results of an evaluation on every rank, to the same file, at the same time."""

from __future__ import annotations

import json
import os

import pss_razor.registry  # noqa: F401

from mmengine.fileio import dump


def test_two_processes_write_the_same_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    fsync = os.fsync

    def other_process(descriptor):
        # The other process writes and renames the same file while this one is about to.
        fsync(descriptor)
        monkeypatch.setattr(os, "fsync", fsync)
        dump({"rank": 1}, str(path))

    monkeypatch.setattr(os, "fsync", other_process)
    dump({"rank": 0}, str(path))
    assert json.loads(path.read_text()) == {"rank": 0}
    assert [child.name for child in tmp_path.iterdir()] == ["metrics.json"]
