"""Checkpoints are looked through before torch reads them.

``torch.load(weights_only=True)`` executes nothing that a file chooses, but some bytes can make it reserve terabytes
(``bytearray``, a storage by its size), and its tensors can be views that are larger than the file a million times over.
With these checks, reading a checkpoint takes time and memory in proportion to its size: tensors take at most 8 bytes
for each byte of the file, plain values some hundred bytes for each byte of their pickle. The same names and calls are
then read by torch, and again by MMEngine.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pss_razor.checkpoints.pickle_check import Instance, Key, Name, Rule, check_keys, check_pickle, describe

_ITEM_SIZES = {
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Char", "Byte", "Bool"), 1),
    "ComplexDouble": 16,
}
_TENSOR_BYTES_PER_BYTE = 8
_COPIED_BYTES_PER_BYTE = 8
_LEAST_BYTES = 2**20
_MAX_DIMENSIONS = 64
_HISTORY_BUFFER = "mmengine.logging.history_buffer.HistoryBuffer"
# What torch.save wrote before it wrote zip archives begins with this number.
_LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def check_checkpoint(path: Path, may_have_history: bool = True) -> None:
    """Check that a file of ``torch.save`` can be read in time and memory in proportion to its size.

    Tensors, plain values, numpy's numbers and arrays, and MMEngine's ``HistoryBuffer`` are all that it may hold.

    Args:
        path: A zip archive, or a file in torch's older format.
        may_have_history: Whether a ``HistoryBuffer`` may be in it.

    Raises:
        UnknownNameError: It asks for something else.
        pickle.UnpicklingError: It is damaged, or claims to hold more than it has.
        zipfile.BadZipFile: It is damaged.
    """
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(len(_LEGACY_MAGIC)) != _LEGACY_MAGIC:
                raise pickle.UnpicklingError("it does not begin as a file of torch.save")
            for _ in ("version", "system"):
                check_pickle(file, size, {})
            checker = _Checker(size, None, may_have_history)
            check_pickle(file, size, checker.names, checker.storage)
            check_pickle(file, size, {})  # the order of the storages, which follow
        return
    records, offset = _read_records(path, size)
    folder = next(name for name in records if name.endswith("/data.pkl")).removesuffix("data.pkl")
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(records[f"{folder}data.pkl"])
    start = f"{folder}data/"
    storages = {name.removeprefix(start): n for name, n in records.items() if name.startswith(start)}
    checker = _Checker(size, storages, may_have_history)
    check_pickle(io.BytesIO(data), len(data), checker.names, checker.storage)


def _read_records(path: Path, size: int) -> tuple[dict[str, int], int]:
    """Names and sizes of what an archive holds, and the position of its pickle."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size for info in infos):
        raise pickle.UnpicklingError("it is compressed, which torch.save does not do")
    records = {info.filename: info.file_size for info in infos}
    pickles = [info for info in infos if info.filename.endswith("/data.pkl")]
    if len(records) != len(infos) or len(pickles) != 1 or sum(records.values()) > size:
        raise pickle.UnpicklingError("it is an archive of another kind")
    with path.open("rb") as file:
        file.seek(pickles[0].header_offset)
        header = file.read(30)
    if len(header) < 30:
        raise pickle.UnpicklingError("it is truncated")
    return records, pickles[0].header_offset + 30 + sum(struct.unpack("<HH", header[26:]))


class _Storage(Instance):
    def __init__(self, items: int, item_size: int) -> None:
        super().__init__("a storage")
        self.items = items
        self.item_size = item_size


class _Checker:
    """What a checkpoint may ask for, and how much of it.

    Args:
        size: Bytes of the file.
        records: Storage -> its bytes; None if the file does not say.
        may_have_history: As for :func:`check_checkpoint`.
    """

    def __init__(self, size: int, records: Mapping[str, int] | None, may_have_history: bool) -> None:
        self.size = size
        self.records = records
        self.storages: dict[str, _Storage] = {}
        self.storage_bytes = 0
        self.tensor_bytes = 0
        self.copied_bytes = 0
        numpy: dict[str, Rule | None] = {"scalar": self.scalar, "_reconstruct": self.array}
        self.names: dict[str, Rule | None] = {
            "collections.OrderedDict": self.empty_table,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": self.parameter,
            "torch.Size": _shape,
            "torch.device": _device,
            "builtins.set": self.set,
            "_codecs.encode": self.encode,
            **{f"torch.{kind}Storage": None for kind in _ITEM_SIZES},
            **{str(value): None for value in vars(torch).values() if isinstance(value, torch.dtype)},
            "numpy.ndarray": None,
            "numpy.dtype": self.dtype,
            **{f"numpy.{core}.multiarray.{name}": rule for core in ("core", "_core") for name, rule in numpy.items()},
        }
        if may_have_history:
            self.names |= {_HISTORY_BUFFER: self.history_buffer, "builtins.getattr": self.history_buffer_method}

    def storage(self, arguments: tuple[Any, ...]) -> _Storage:
        ((what, kind, key, _, items, *view),) = arguments
        item_size = _ITEM_SIZES[kind.name.removeprefix("torch.").removesuffix("Storage")]
        if what != "storage" or type(items) is not int or items < 0 or view not in ([], [None]) or type(key) is not str:
            raise pickle.UnpicklingError(f"a storage of {describe(items)} numbers")
        if key not in self.storages:
            self.storages[key] = _Storage(items, item_size)
            self.storage_bytes += items * item_size
            there = items * item_size if self.records is None else self.records.get(key)
            if there != items * item_size or self.storage_bytes > self.size:
                raise pickle.UnpicklingError(f"storage {describe(key)} of {items} numbers is not there")
        storage = self.storages[key]
        if (storage.items, storage.item_size) != (items, item_size):
            raise pickle.UnpicklingError(f"storage {describe(key)} has two sizes")
        return storage

    def tensor(self, arguments: tuple[Any, ...]) -> Instance:
        storage, offset, shape, strides, requires_grad, hooks = arguments
        for sizes in ((offset,), shape, strides):
            _check_sizes(sizes)
        _check_grad(requires_grad, hooks)
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if not isinstance(storage, _Storage) or (count and last >= storage.items) or count > storage.items:
            raise pickle.UnpicklingError(f"a tensor of shape {shape!s:.50} is more than its storage")
        self.tensor_bytes += count * storage.item_size
        if self.tensor_bytes > _TENSOR_BYTES_PER_BYTE * self.size + _LEAST_BYTES:
            raise pickle.UnpicklingError("its tensors share their storages, and are much more than the file")
        return Instance("a tensor")

    def parameter(self, arguments: tuple[Any, ...]) -> Instance:
        tensor, requires_grad, hooks = arguments
        _check_grad(requires_grad, hooks)
        if not isinstance(tensor, Instance) or tensor.kind != "a tensor":
            raise pickle.UnpicklingError("a parameter that is no tensor")
        return tensor

    def empty_table(self, arguments: tuple[Any, ...]) -> Instance:
        if arguments:
            raise pickle.UnpicklingError("a table is made from something")
        return Instance("dict", _is_table)

    def set(self, arguments: tuple[Any, ...]) -> Instance:
        (items,) = arguments
        check_keys(items)
        return Instance("a set")

    def encode(self, arguments: tuple[Any, ...]) -> bytes:
        text, encoding = arguments
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"a text in {describe(encoding)}")
        return self.copy(text.encode("latin-1"))

    def copy(self, data: bytes) -> bytes:
        self.copied_bytes += len(data)
        if self.copied_bytes > _COPIED_BYTES_PER_BYTE * self.size + _LEAST_BYTES:
            raise pickle.UnpicklingError("its arrays have the same bytes, and are much more than the file")
        return data

    def dtype(self, arguments: tuple[Any, ...]) -> Instance:
        _check_simple(arguments)
        return Instance("a dtype", _is_tuple)

    def array(self, arguments: tuple[Any, ...]) -> Instance:
        return Instance("an array", self.fill, is_complete=False)

    def fill(self, arguments: tuple[Any, ...]) -> None:
        ((_, shape, _, _, data),) = arguments
        _check_sizes(shape)
        if type(data) is not bytes:
            raise pickle.UnpicklingError(f"an array of {describe(data)}")
        self.copy(data)

    def scalar(self, arguments: tuple[Any, ...]) -> Key:
        _, data = arguments
        if type(data) is not bytes:
            raise pickle.UnpicklingError(f"a number of {describe(data)}")
        return Key("a number")

    def history_buffer(self, arguments: tuple[Any, ...]) -> Instance:
        if arguments:
            raise pickle.UnpicklingError("a HistoryBuffer is made from something")
        return Instance("a HistoryBuffer", _is_table, is_complete=False)

    def history_buffer_method(self, arguments: tuple[Any, ...]) -> Instance:
        owner, name = arguments
        if not isinstance(owner, Name) or owner.name != _HISTORY_BUFFER or type(name) is not str:
            raise pickle.UnpicklingError("it asks for an attribute")
        return Instance("a method")


def _shape(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    (sizes,) = arguments
    _check_sizes(sizes)
    return sizes


def _device(arguments: tuple[Any, ...]) -> Instance:
    _check_simple(arguments)
    return Instance("a device")


def _check_simple(arguments: tuple[Any, ...]) -> None:
    if not all(isinstance(argument, (str, int)) for argument in arguments):
        raise pickle.UnpicklingError(f"it is called with {', '.join(map(describe, arguments))}")


def _check_grad(requires_grad: Any, hooks: Any) -> None:
    if type(requires_grad) is not bool or not isinstance(hooks, Instance) or hooks.kind != "dict":
        raise pickle.UnpicklingError("a tensor with something else")


def _check_sizes(sizes: Any) -> None:
    if type(sizes) is not tuple or len(sizes) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in sizes):
        raise pickle.UnpicklingError("sizes that are none")


def _is_table(arguments: tuple[Any, ...]) -> None:
    (state,) = arguments
    if not isinstance(state, Instance) or state.kind != "dict":
        raise pickle.UnpicklingError("a state that is no table")


def _is_tuple(arguments: tuple[Any, ...]) -> None:
    (state,) = arguments
    if type(state) is not tuple:
        raise pickle.UnpicklingError("a state that is no tuple")
