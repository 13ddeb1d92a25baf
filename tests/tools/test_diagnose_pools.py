"""tools/diagnose_pools.py on a tiny training."""

from __future__ import annotations

import copy
import json
import shutil

import pytest


def fails(done, *words):
    assert done.code == 1 and "Traceback" not in done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("error:") and all(word in line for word in words), line


def test_a_run_is_enough(call, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.parent, run)
    done = call("diagnose_pools.py", run, "--out", tmp_path / "out", "--fresh", 3)
    assert done.code == 0, done.err[-2000:]
    diagnosis = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert diagnosis["checkpoint"] == str(run / "epoch_3.pth")
    assert diagnosis["images"] == 48 and diagnosis["measured_on"].startswith("Digits(split='test'")
    assert diagnosis["step"] == 18  # three epochs of six draws
    assert sum(own["figures"]["visits"] for own in diagnosis["pools"].values()) == 18
    assert sum(len(own["members"]) for own in diagnosis["pools"].values()) >= 8
    # Accuracies are those of tools/test.py, which takes the best of the members by score.
    done = call("test.py", next(run.glob("*.py")), run / "epoch_3.pth", "--out", tmp_path / "results.json")
    assert done.code == 0, done.err[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())["subnets"]
    by_name = {own["name"]: own["metrics"]["accuracy/top1"] for own in results if not own["rank"]}
    assert by_name == {
        "largest": diagnosis["largest"]["accuracy"],
        "smallest": diagnosis["smallest"]["accuracy"],
        **{name: own["figures"]["pick"] for name, own in diagnosis["pools"].items() if own["members"]},
    }
    for own in (diagnosis["largest"], *diagnosis["pools"]["flops_0.3"]["fresh"]):
        assert 0.1 < own["cross_entropy"] < 10
    assert (tmp_path / "out" / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert "Kendall's tau" in (tmp_path / "out" / "diagnosis.md").read_text()


def test_fewer_images(call, tiny, trained, tmp_path):
    done = call("diagnose_pools.py", tiny, trained, "--images", 20, "--members", 2, "--fresh", 1)
    assert done.code == 0, done.err[-2000:]
    diagnosis = json.loads((tmp_path / "work" / "diagnosis" / "diagnosis.json").read_text())
    assert diagnosis["images"] == 20 and diagnosis["measured_on"].endswith("20 images")
    assert all(len(own["fresh"]) == 1 for own in diagnosis["pools"].values())
    assert (diagnosis["largest"]["accuracy"] / 5) % 1 == pytest.approx(0, abs=1e-4)  # an image is 5 points


def test_selection_images(call, tiny, trained, tmp_path):
    from mmengine.config import Config

    config = Config.fromfile(tiny)
    selection = copy.deepcopy(config.test_dataloader)
    selection.dataset.update(split="train", indices=-30)
    config.test_cfg.selection_dataloader = selection
    config.dump(tmp_path / "config.py")
    done = call("diagnose_pools.py", tmp_path / "config.py", trained, "--on", "selection", "--fresh", 1)
    assert done.code == 0, done.err[-2000:]
    diagnosis = json.loads((tmp_path / "work" / "diagnosis" / "diagnosis.json").read_text())
    assert diagnosis["images"] == 30 and "split='train'" in diagnosis["measured_on"]


def test_bad_input(call, tiny, trained, write_config, tmp_path):
    fails(call("diagnose_pools.py", tiny, trained, "--images", 0), "--images 0", "at least 1")
    fails(call("diagnose_pools.py", tiny, trained, "--members", 1), "--members 1", "at least 2")
    fails(call("diagnose_pools.py", tiny, trained, "--on", "selection"), "no test_cfg.selection_dataloader")
    fails(call("diagnose_pools.py", tiny, tmp_path / "none.pth"), "none.pth does not exist")
    fails(call("diagnose_pools.py", tmp_path / "none"), "is not the work dir of a training")
    empty = tmp_path / "empty"
    empty.mkdir()
    fails(call("diagnose_pools.py", empty), "has not one config but none", "CONFIG CHECKPOINT")
    (empty / "config.py").touch()
    fails(call("diagnose_pools.py", empty), "has no checkpoint epoch_N.pth")
    (tmp_path / "file").touch()
    fails(call("diagnose_pools.py", tiny, trained, "--out", tmp_path / "file"), "is a file")


def test_a_baseline_has_no_pools(call, write_config, tmp_path):
    hook = "dict(_delete_=True, type='BaselineSamplerHook', method='uniform')"
    config = write_config(f"default_hooks = dict(subnet_sampler={hook})\ntrain_cfg = dict(max_epochs=1)")
    assert call("train.py", config, "--no-validate", "--work-dir", tmp_path / "run").code == 0
    fails(
        call("diagnose_pools.py", config, tmp_path / "run" / "epoch_1.pth"),
        "has no pools but the state of a UniformSubnetSampler",
    )
