"""Building a latency table, interrupting it, checking it."""

import json
from pathlib import Path

import pytest

from pss_razor.engine.launch import load_config
from pss_razor.estimators import LatencyTable
from pss_razor.estimators.latency.interpolation import choose_subset
from pss_razor.estimators.latency.measure import describe_machine, find_geometries
from pss_razor.models import build_supernet

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "pss" / "pss_mbv2_flops_digits.py"


def run(call, tool, *arguments):
    return call(f"latency/{tool}", *arguments)


@pytest.mark.slow
def test_build_continue_verify(call, tmp_path):
    path = tmp_path / "table.json"
    arguments = (CONFIG, "--device", "cpu", "--out", path, "--rounds", 2)
    done = run(call, "build_table.py", *arguments)
    assert done.code == 0, done.err
    table = LatencyTable.load(path)
    assert len(table.latencies_us) == 233
    assert {"device_name", "threads", "torch", "date", "backend", "batch", "dtype"} <= table.provenance.keys()
    assert not table.interpolate

    # Interrupted after 200 blocks: those are kept, the others measured.
    kept = dict(list(table.latencies_us.items())[:200])
    LatencyTable(kept, "cpu", table.provenance).save(path)
    assert run(call, "build_table.py", *arguments).code == 0
    again = LatencyTable.load(path)
    assert again.latencies_us.keys() == table.latencies_us.keys()
    assert kept.items() <= again.latencies_us.items()

    done = run(call, "verify_table.py", CONFIG, path, "--subnets", 6, "--rounds", 2, "--store-correction")
    assert done.code == 0, done.err
    for words in ("error of the sum over blocks: median", "worst", "rank correlation", "on the other half"):
        assert words in done.out
    assert LatencyTable.load(path).correction != (1.0, 0.0)


def test_a_subset_is_measured_and_the_interpolation_checked(call, tmp_path):
    path = tmp_path / "new" / "folder" / "table.json"
    done = run(
        call, "build_table.py", CONFIG, "--device", "cpu", "--out", path, "--rounds", 1, "--max-blocks", 90,
    )  # fmt: skip
    assert done.code == 0, done.err
    table = LatencyTable.load(path)
    assert table.interpolate and len(table.latencies_us) <= 90
    report = table.provenance["interpolation"]
    assert report["of_blocks"] == 233 and report["measured_blocks"] == len(table.latencies_us)
    assert report["checked_blocks"] == 48 and 0 < report["median_error"] <= report["worst_error"]
    assert "interpolation, on 48 others: median error" in done.out


@pytest.mark.parametrize("left_out", [10, 0])
def test_fewer_are_left_out_than_the_check_takes(call, tmp_path, left_out):
    """An interrupted run with a larger --max-blocks has measured nearly all of 233 blocks, or all."""
    _, _, graph = build_supernet(load_config(str(CONFIG), None, "none", None))
    subset = choose_subset(graph, 90)
    others = [geometry for geometry in find_geometries(graph) if geometry not in subset]
    assert len(others) > 100
    path = tmp_path / "table.json"
    provenance = describe_machine("cpu", "torch") | dict(batch=1, reference_us=1000.0, interpolation={"of_blocks": 1})
    known = [*subset, *others[left_out:]]
    LatencyTable(dict.fromkeys(known, 100.0), "cpu", provenance).save(path)
    done = run(call, "build_table.py", CONFIG, "--device", "cpu", "--out", path, "--rounds", 1, "--max-blocks", 90)
    assert done.code == 0, done.err
    table = LatencyTable.load(path)
    assert table.interpolate is (left_out > 0) and set(table.latencies_us) == set(known)
    report = table.provenance.get("interpolation")
    if left_out:
        assert (report["checked_blocks"], report["measured_blocks"], report["of_blocks"]) == (10, 223, 233)
        assert "interpolation, on 10 others: median error" in done.out
    else:
        assert report is None


@pytest.mark.slow
def test_onnxruntime(call, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "table.json"
    arguments = ("--device", "cpu", "--out", path, "--rounds", 1, "--max-blocks", 60)
    done = run(call, "build_table.py", CONFIG, *arguments, "--backend", "onnxruntime")
    assert done.code == 0, done.err
    assert LatencyTable.load(path).provenance["backend"] == "onnxruntime"
    assert "onnxruntime" in LatencyTable.load(path).provenance
    done = run(call, "verify_table.py", CONFIG, path, "--subnets", 3, "--rounds", 1)
    assert done.code == 0, done.err
    # another backend does not continue it
    done = run(call, "build_table.py", CONFIG, *arguments)
    assert done.code != 0 and "was measured with another ['backend']" in done.err


@pytest.mark.parametrize("flag", ["--threads", "--batch", "--rounds", "--max-blocks"])
def test_numbers_that_cannot_be(call, tmp_path, flag):
    done = run(call, "build_table.py", CONFIG, "--device", "cpu", "--out", tmp_path / "t.json", flag, 0)
    assert done.code != 0 and "0 must be at least 1" in done.err and "Traceback" not in done.err


def test_does_not_mix_measurements(call, tmp_path):
    path = tmp_path / "table.json"
    LatencyTable({}, "cpu", {"threads": 7}).save(path)
    before = path.read_bytes()
    done = run(call, "build_table.py", CONFIG, "--device", "cpu", "--out", path)
    assert done.code != 0 and "was measured with another" in done.err and "choose another --out" in done.err
    assert path.read_bytes() == before


@pytest.mark.parametrize("broken", ["missing", "not a table"])
def test_verify_without_a_table(call, tmp_path, broken):
    path = tmp_path / "table.json"
    if broken != "missing":
        path.write_text(json.dumps({"format": 7}))
    done = run(call, "verify_table.py", CONFIG, path)
    assert done.code != 0 and str(path) in done.err and "Traceback" not in done.err


def test_a_converted_network(call, tmp_path):
    path = tmp_path / "table.json"
    config = ROOT / "tests" / "tiny" / "tiny_converted.py"
    done = run(call, "build_table.py", config, "--device", "cpu", "--out", path, "--rounds", 1, "--max-blocks", 200)
    assert done.code == 0, done.err
    table = LatencyTable.load(path)
    assert table.interpolate and len(table.latencies_us) <= 200
    kinds = {geometry.block_type.partition("-")[0] for geometry in table.latencies_us}
    assert {"Conv2dNormActivation", "InvertedResidual", "Linear"} <= kinds
    done = run(call, "verify_table.py", config, path, "--subnets", 4, "--rounds", 1)
    assert done.code == 0, done.err
    assert "error of the sum over blocks: median" in done.out and "6 subnets" in done.out
