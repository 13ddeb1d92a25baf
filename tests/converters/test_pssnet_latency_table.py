"""Latency tables of the authors' program, pickled by a program that is not this one."""

from __future__ import annotations

import csv
import json
import os
import pickle
import pickletools

import numpy as np
import pytest
import torch

from pss_razor.converters import read_pssnet_latencies
from pss_razor.core import ConfigError
from pss_razor.estimators import LatencyEstimator
from pss_razor.estimators.latency.latency_table import BlockGeometry, LatencyTable

GROUPS = ("stem", *(f"stage{stage}" for stage in range(1, 8)))
ROWS = [
    ["Conv2d", 224, 3, 32, None, 3, 2, 1, 625.5],
    ["MBV2Block", 112, 32, 16, 32, None, 1, None, 1191.25],
    ["Linear", 1, 1280, 1000, None, None, None, None, 55.0],
]


@pytest.mark.parametrize(("protocol", "number"), [(3, "float64"), (4, "float32"), (5, "float64"), (2, "float")])
def test_small_table(write_pickle, convert, tmp_path, protocol, number):
    path = write_pickle(ROWS, protocol, number)
    named = {text for op, text, _ in pickletools.genops(path.read_bytes()) if isinstance(text, str)}
    assert any("BlockCfg" in text for text in named)
    done = convert("latency-table", path, tmp_path / "ours.json", "--device", "cuda", "--note", "GTX 1080Ti")
    assert done.code == 0, done.err
    assert "3 blocks on cuda" in done.out
    table = LatencyTable.load(tmp_path / "ours.json")
    assert table.latencies_us == {BlockGeometry(*row[:-1]): row[-1] for row in ROWS}
    assert all(type(value) is float for value in table.latencies_us.values())
    assert table.device == "cuda" and table.correction == (1.0, 0.0)
    assert table.provenance == {"imported_from": "PSS-Net: theirs.pkl", "note": "GTX 1080Ti"}


def test_numbers_of_numpy_1_and_of_other_byte_orders(tmp_path):
    # Two spellings of one numpy scalar: numpy 1 had its core elsewhere, and another machine may write big-endian.
    value = np.array([625.5], dtype=">f8")[0]
    block = b"c__main__\nBlockCfg\n(X\x06\x00\x00\x00Conv2dK\xe0K\x03K NK\x03K\x02K\x01t\x81"
    state = b"(K\x03X\x01\x00\x00\x00>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR" + state
    number = b"cnumpy.core.multiarray\nscalar\n(" + dtype + b"C\x08" + value.tobytes()[::-1] + b"tR"
    if value.dtype.byteorder == ">":
        number = number.replace(value.tobytes()[::-1], value.tobytes())
    else:
        number = number.replace(value.tobytes()[::-1], np.array([625.5], dtype=">f8").tobytes())
    (tmp_path / "theirs.pkl").write_bytes(b"\x80\x03}" + block + number + b"s.")
    assert read_pssnet_latencies(tmp_path / "theirs.pkl") == {BlockGeometry(*ROWS[0][:-1]): 625.5}


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_reference_latencies(reference, imagenet_mbv2, write_pickle, convert, tmp_path, device):
    """The authors estimate a narrower last conv than their model has; that block and the linear layer are exchanged."""
    rows = []
    with open(reference / f"mbv2_latency_{device}.csv") as file:
        for block_type, *sizes, latency_us in list(csv.reader(file))[1:]:
            rows.append([block_type, *(int(size) if size else None for size in sizes), float(latency_us)])
    out = tmp_path / "ours.json"
    name = {"cpu": "cpu", "gpu": "cuda"}[device]
    done = convert("latency-table", write_pickle(rows), out, "--device", name)
    assert done.code == 0, done.err
    latency_us = {BlockGeometry(*row[:-1]): row[-1] for row in rows}
    assert LatencyTable.load(out).latencies_us == latency_us

    convs_us = {key[1:4]: value for key, value in latency_us.items() if key[0] == "Conv2d"}
    linears_us = {key[2]: value for key, value in latency_us.items() if key[0] == "Linear"}

    def tail_us(resolution, cin, cout):
        return convs_us[-(-resolution // 32), cin, cout] + linears_us[cout]

    cost = LatencyEstimator(out, name).build_cost(imagenet_mbv2.cost_graph)
    subnets = json.loads((reference / "mbv2_subnet_costs.json").read_text())["subnets"]
    assert len(subnets) == 402
    space = imagenet_mbv2.space
    choices = [dict(zip(GROUPS, s["channels"][:8], strict=True)) | {"resolution": s["resolution"]} for s in subnets]
    predicted = cost(space.encode(choices))
    for subnet, ours_us in zip(subnets, predicted, strict=True):
        resolution, (cin, cout) = subnet["resolution"], subnet["channels"][7:]
        theirs_us = ours_us - tail_us(resolution, cin, 1280) + tail_us(resolution, cin, cout)
        assert theirs_us == pytest.approx(subnet[f"latency_{device}_us"], rel=1e-6)


# What cannot be converted


class Call:
    """Unpickling this calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Named:
    """Unpickling this looks a name up."""


BAD_FILES = {
    "malicious": (lambda marker: {1: Call(os.mkdir, str(marker))}, ["refused", ".mkdir;"]),
    "malicious, eval": (lambda marker: Call(eval, f"__import__('os').mkdir({str(marker)!r})"), ["refused", ".eval;"]),
    "malicious, getattr": (lambda marker: Call(getattr, 1, "real"), ["refused", ".getattr;"]),
    "another class": (lambda marker: {Named: 1.0}, ["refused", "test_pssnet_latency_table.Named"]),
    "an array": (lambda marker: {1: np.zeros(3)}, ["refused", "_reconstruct"]),
    "objects of numpy": (lambda marker: {1: np.dtype("O")}, ["1 is not a BlockCfg"]),
    "a list": (lambda marker: [1.0], ["a list"]),
    "empty table": (lambda marker: {}, ["holds no blocks"]),
    "other keys": (lambda marker: {("Conv2d", 1): 1.0}, ["('Conv2d', 1) is not a BlockCfg"]),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_pickle(refuses, tmp_path, case, protocol):
    make, words = BAD_FILES[case]
    path = tmp_path / "theirs.pkl"
    path.write_bytes(pickle.dumps(make(tmp_path / "executed"), protocol))
    refuses("latency-table", path, "theirs.pkl", *words, options=("--device", "cpu"))


def test_the_malicious_pickle_would_do_harm(tmp_path):
    make, _ = BAD_FILES["malicious"]
    pickle.loads(pickle.dumps(make(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_pickle_cannot_change_the_reader(write_pickle, tmp_path):
    """It can set attributes of the classes that it is given: they must not be those that the next file gets."""
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x03c__main__\nBlockCfg\n(NX\x07\x00\x00\x00__new__cnumpy\ndtype\ns}b.")
    for content in (b"c__main__\nBlockCfg\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\nscalar\n"):
        path.write_bytes(b"\x80\x03" + content + b"N}X\x07\x00\x00\x00__doc__X\x04\x00\x00\x00evils\x86b.")
        with pytest.raises(ConfigError):
            read_pssnet_latencies(path)
    assert BlockGeometry.__doc__ != "evil"
    assert read_pssnet_latencies(write_pickle(ROWS)) == {BlockGeometry(*row[:-1]): row[-1] for row in ROWS}


OTHER_FILES = {
    "missing": (lambda path, data: None, ["does not exist"]),
    "empty": (lambda path, data: path.touch(), ["damaged"]),
    "text": (lambda path, data: path.write_text("block_type,in_size\n"), ["not a pickled latency table"]),
    "truncated": (lambda path, data: path.write_bytes(data[:-20]), ["damaged"]),
    "gigabytes": (lambda path, data: path.write_bytes(b"\x80\x03}r\xff\xff\xff\x7f."), ["object number 2147483647"]),
    "more bytes than there are": (
        lambda path, data: path.write_bytes(b"\x80\x05\x96" + bytes(4) + b"\x01\x00\x00\x00."),
        ["not a pickled latency table", "4294967296"],
    ),
    "a checkpoint": (lambda path, data: torch.save({"model": {}}, path), ["not a pickled latency table"]),
    "a table of ours": (lambda path, data: LatencyTable({}, "cpu").save(path), ["not a pickled latency table"]),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_other_file(write_pickle, refuses, tmp_path, case):
    make, words = OTHER_FILES[case]
    path = tmp_path / "theirs.pkl"
    make(path, write_pickle(ROWS).read_bytes())
    refuses("latency-table", path, "theirs.pkl", *words, options=("--device", "cpu"))


BAD_ROWS = {
    "negative": (["Linear", 1, 8, 8, None, None, None, None, -1.0], ["-1.0 µs"]),
    "not finite": (["Linear", 1, 8, 8, None, None, None, None, float("nan")], ["nan µs"]),
    "a size that is a text": (["Linear", "1", 8, 8, None, None, None, None, 1.0], ["'1'", "its sizes"]),
    "a missing size": (["Linear", None, 8, 8, None, None, None, None, 1.0], ["its sizes"]),
    "a kind that is no text": ([7, 1, 8, 8, None, None, None, None, 1.0], ["a kind of block"]),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_row(write_pickle, refuses, case):
    row, words = BAD_ROWS[case]
    refuses("latency-table", write_pickle([row]), *words, options=("--device", "cpu"))


def test_value_that_is_no_number(refuses, tmp_path):
    path = tmp_path / "theirs.pkl"
    path.write_bytes(b"\x80\x03}c__main__\nBlockCfg\n(X\x06\x00\x00\x00LinearK\x01K\x08K\x08NNNNt\x81\x88s.")
    refuses("latency-table", path, "has True instead of microseconds", options=("--device", "cpu"))


def test_out_cannot_be_written(write_pickle, convert, tmp_path):
    for out in (tmp_path, tmp_path / "no folder" / "ours.json"):
        done = convert("latency-table", write_pickle(ROWS), out, "--device", "cpu")
        assert done.code == 1 and f"cannot be converted to {out}" in done.err.splitlines()[-1]
        assert not list(tmp_path.iterdir())
