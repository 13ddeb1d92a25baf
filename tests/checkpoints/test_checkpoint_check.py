from __future__ import annotations

import io
import time
import tracemalloc
import zipfile

import pytest
import torch

from pss_razor.checkpoints import read_checkpoint
from pss_razor.core import CheckpointError

LEVELS = 60


class Ask:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def doubled(make, first=0):
    """Few objects, which are very many written out: each has the one before it twice."""
    value = make([first, first])
    for _ in range(LEVELS):
        value = make([value, value])
    return value


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def endless():
    value = []
    value.append(value)
    return value


def shared():
    storage = torch.zeros(2**18)
    return {str(i): storage[:-1] for i in range(1000)}


def compressed(path):
    content = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(2**22)}}, content)
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))


HOSTILE = {
    "bytearray": Ask(bytearray, 2**40),
    "storage": Ask(torch.UntypedStorage, 2**40),
    "tensor": Ask(torch.FloatTensor, 2**40),
    "one number as a million millions": torch.zeros(1).expand(10**12),
    "one storage a thousand times": shared(),
    "lists of the same lists": doubled(list),
    "tables of the same tables": doubled(lambda pair: dict(enumerate(pair))),
    "deep": nested(200),
    "endless": endless(),
    "keys that a table takes for the same": {i * (2**61 - 1): None for i in range(1, 100)},
    "a long number": 2**600,
    "a long key": {"x" * 5000: 1},
    "the same bytes as many": [Ask(__import__("_codecs").encode, text, "latin1") for text in ["x" * 10**5] * 1000],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_small_files_that_ask_for_much(case, tmp_path):
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": {}, "x": HOSTILE[case]}, path)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"hostile.pth (cannot be read|holds more than tensors and plain values)"):
        read_checkpoint(path, needs_pools=False)
    assert time.process_time() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 100 * path.stat().st_size + 2**24
    tracemalloc.stop()


def test_compressed(tmp_path):
    compressed(tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match="it is compressed"):
        read_checkpoint(tmp_path / "hostile.pth", needs_pools=False)


def test_a_key_of_tuples_of_the_same_tuples(tmp_path):
    """Its hash would take forever, in torch's reader too."""
    key = b")" + b"q\x01h\x01\x86" * LEVELS  # an empty tuple, and again and again a pair of what is there
    content = b"\x80\x02}X\x0a\0\0\0state_dict}sX\x01\0\0\0x}" + key + b"K\x01ss."
    torch.save({}, tmp_path / "hostile.pth")
    with zipfile.ZipFile(tmp_path / "hostile.pth") as source:
        records = {name: content if name.endswith("data.pkl") else source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(tmp_path / "hostile.pth", "w") as target:
        for name, data in records.items():
            target.writestr(name, data)
    with pytest.raises(CheckpointError, match="a key of a table is tuple"):
        read_checkpoint(tmp_path / "hostile.pth", needs_pools=False)


def test_plain_checkpoints_are_read(tmp_path):
    """Views, transposed and shared tensors, sets, sizes, numpy's values; compared with what was written."""
    weight = torch.randn(6, 4)
    content = {
        "state_dict": {"a": weight, "b": weight.t(), "c": weight[1:3, ::2], "tied": weight, "empty": torch.zeros(0, 3)},
        "kinds": [torch.ones(2, dtype=getattr(torch, kind)) for kind in ("half", "bfloat16", "int8", "bool", "long")],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "plain": [None, True, -5, 2**40, 1.5, float("inf"), "tëxt", (1, (2,)), {"a": [1]}, {1: 2}, {(1, "x"): 0}, {3}],
        "size": weight.shape,
    }
    torch.save(content, tmp_path / "plain.pth")
    found = read_checkpoint(tmp_path / "plain.pth", needs_pools=False)
    assert found["plain"] == content["plain"] and found["size"] == content["size"]
    for name, tensor in content["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor)
    assert all(torch.equal(a, b) for a, b in zip(found["kinds"], content["kinds"], strict=True))
    assert torch.equal(found["parameter"], content["parameter"])
