"""What the rehearsal concludes from what its processes write down, and that it ends a process that takes too much."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "rehearsal"))

import rehearsal_report  # noqa: E402
import rehearse  # noqa: E402

SIZE = asdict(rehearse.SIZES["small"])


def rank(number, task, pools):
    """What a process of a rehearsal in which all is well writes down."""
    times = {"seconds": 2.0, "calls": 4, "median": 0.5, "least": 0.25}
    parts = ("draw", "score", "hooks before or after an iteration", "checkpoint save", "evaluator processing")
    record = {
        "moments": {"runner built": 5.0, "end": 9.0},
        "times": {part: dict(times) for part in parts},
        "pools": "p",
        "parameters": "w",
        "number_of_pools": pools,
        "decoded": {"train": 8, "val": 501 if pools == 87 else 5},
        "peak_mib": 1200.0,
        "peak_of_a_worker_mib": 800.0,
        "statistics": [[0.1, 0.2], [0.3, 0.4], [0.5], [0.6]],
    }
    if task == "train":
        record |= {"first_batch": f"images of rank {number}", "iterations": 4}
    if task == "test":
        record |= {"images": 500, "subnets": 437, "peak_of_gathering_mib": 1105.0}
        record |= {"resident_mib": [1000.0, 1090.0, 1095.0, 1100.0]}
    return record


@pytest.fixture
def stages():
    made = {}
    for config, pools in (("pss_mbv2_flops", 24), ("pss_mbv1_multi", 87)):
        for task, processes in (("train", 2), ("test", 2), ("export", 1)):
            if (config, task) != ("pss_mbv1_multi", "export"):
                ranks = [rank(number, task, pools) for number in range(processes)]
                made[f"{config} {task}"] = asdict(rehearse.Stage("tool", 10.0, "", 1200.0, 800.0, ranks))
    return made


def failed(stages):
    return [name for name, _, _, met in rehearsal_report.check(SIZE, stages) if not met]


def test_all_is_well(stages, tmp_path, capsys):
    assert failed(stages) == []
    assert rehearsal_report.write_report(tmp_path, SIZE, stages) == 0
    text = (tmp_path / "report.md").read_text()
    assert text in capsys.readouterr().out and "FAIL" not in text and "| draw | 2.00 | 4 | 500.000 |" in text
    # 0.25 s for each of 312,750 steps
    assert "| pss_mbv2_flops train: draw | 1303.1 min | 250000 µs x 312,750 steps |" in text


@pytest.mark.parametrize(
    ("stage", "key", "value", "check"),
    [
        ("pss_mbv2_flops train", "pools", "others", "pools and draws on all ranks"),
        ("pss_mbv2_flops train", "parameters", "others", "weights on all ranks"),
        ("pss_mbv1_multi train", "first_batch", "images of rank 0", "first batches"),
        ("pss_mbv1_multi train", "number_of_pools", 86, "pools"),
        ("pss_mbv2_flops test", "statistics", [[0.1, 0.2], [0.3, 0.4], [0.5], [0.7]], "BN statistics do not depend"),
        ("pss_mbv1_multi test", "decoded", {"train": 0, "val": 500 * 437}, "images decoded"),
        ("pss_mbv1_multi test", "decoded", {"train": 0, "val": 300}, "images decoded"),
        # Each of 437 x 500 predictions takes 4 kB: 10.7 GB at the real size.
        ("pss_mbv1_multi test", "resident_mib", [1000.0, 1090.0, 1517.0, 1944.0], "extrapolated"),
    ],
)
def test_what_one_process_gives_away(stages, stage, key, value, check):
    stages[stage]["ranks"][1][key] = value
    (name,) = failed(stages)
    assert check in name and name.startswith((stage.split()[0], "the same, 437 subnets"))


def test_too_much_memory_and_stages_that_fail(stages):
    heavy, crashed, missing = (copy.deepcopy(stages) for _ in range(3))
    heavy["pss_mbv1_multi test"]["peak_mib"] = 3073.0
    assert failed(heavy) == ["final test with a stub as network: largest process"]
    crashed["pss_mbv2_flops export"] |= {"failure": "exit status 1", "ranks": []}
    assert failed(crashed) == [
        "pss_mbv2_flops export: runs to its end",
        "pss_mbv2_flops: BN statistics do not depend on the number of processes",
    ]
    for name in [name for name in missing if "mbv1" in name]:
        del missing[name]
    assert len(failed(missing)) >= 8 and all("mbv2" not in name for name in failed(missing))
    assert list(rehearsal_report.extrapolate(SIZE, missing)) and list(rehearsal_report.extrapolate(SIZE, {})) == []


def test_real_memory():
    """Growth after the second batch, on to 437 subnets of 6,250 images; what gathering takes, on to 50,000 images."""
    record = {"resident_mib": [900.0, 1000.0, 1010.0, 1020.0], "images": 500, "subnets": 437}
    record |= {"peak_of_gathering_mib": 1022.0, "peak_mib": 1150.0}
    grown, gathered = 40 * 12.5, 2 * 50
    assert rehearsal_report.real_memory_mib(record, 1000) == pytest.approx(1000 + grown + max(gathered, 130))


def test_data(tmp_path):
    """The real layout, of links to few files; made once."""
    rehearse.make_data(tmp_path / "data", 2000)
    for split, count in (("train", 1000), ("train_alike", 1000), ("val", 2000)):
        files = list((tmp_path / "data" / split).glob("n*/*.JPEG"))
        assert len(files) == count and len({file.parent for file in files}) == 1000
        assert len({file.stat().st_ino for file in files}) == (1 if split == "train_alike" else 64)
    first = next((tmp_path / "data" / "val").glob("*/*"))
    before = first.stat().st_ctime_ns
    rehearse.make_data(tmp_path / "data", 2000)
    assert first.stat().st_ctime_ns == before


def test_a_process_that_takes_too_much_is_ended(monkeypatch):
    """Also one that another has started; what its memory was is noted."""
    monkeypatch.setattr(rehearse, "MEMORY_BAR_MIB", 150)
    child = "import time; x = bytearray(300 * 2**20); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True)
    stage = rehearse.Stage("")
    try:
        failure = rehearse.watch(process, stage)
    finally:
        for pid in (*rehearse.descendants(process.pid), process.pid):
            subprocess.run(["kill", "-9", str(pid)], check=False)
        process.wait()
    assert failure.startswith("ended: a process had ") and stage.peak_mib > 150


def test_a_process_that_ends_is_left_alone():
    process = subprocess.Popen([sys.executable, "-c", "x = bytearray(50 * 2**20)"])
    stage = rehearse.Stage("")
    assert rehearse.watch(process, stage) == "" and process.returncode == 0
