"""The switchable bundle: many subnets of one supernet in one file, with one set of weights.

Whatever a file says, loading it takes time and memory in proportion to its size. Its description, written out for each
subnet, may have 256 kB and 8 bytes for each byte of the file; real bundles have a tenth of a byte. An operation has at
least 70 bytes there, and takes some kB and ms at most.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pss_razor.core import ExportError, check_nesting, parse_json
from pss_razor.deploy.files import checked, read_tensors, write_tensors
from pss_razor.deploy.joined_weight import Parts, extent, join, parts_from_json, parts_to_json, place
from pss_razor.deploy.subnet_record import OPTIONAL_CHOICES, SubnetRecord
from pss_razor.static.static_net import FORMAT as NET_FORMAT
from pss_razor.static.static_net import StaticNet, check_finite, check_tensors, show

# Files of format 1 have no parts. They are still written where there are none.
FORMATS = (1, 2)

# Names of tensors: those of weights begin with the first.
_WEIGHTS = "layers."
_DESCRIPTION = "description"
_VALUES = "bn_statistics.{}"
_EXPONENTS = "bn_exponents.{}"

# Far above any real bundle. They keep a hostile file from filling the memory.
_MAX_DESCRIPTION_BYTES = 2**28
_DESCRIPTION_BYTES_PER_BYTE = 8
_LEAST_DESCRIPTION_BYTES = 2**18
# Bytes added for operations that torch takes long to check on the meta device: 18 ms (first) and 1 to 6 ms.
_EXTRA_BYTES = {
    "interpolate": 2**12,
    **dict.fromkeys(("clamp", "hardtanh", "hardswish", "hardsigmoid", "relu6", "elu", "leaky_relu"), 2**10),
}
# Added for each weight that is joined of parts: 0.4 ms and 11 kB.
_JOINED_BYTES = 2**9
_MAX_SUBNETS = 1024
_MAX_EXPONENT = 200

# float16 has 11 bits; its largest numbers are in [2**15, 2**16). We stay a power of two below.
_BITS = 11
_LARGEST_EXPONENT = 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundledSubnet(SubnetRecord):
    """A subnet with its network, whose :attr:`~StaticNet.resolution` is the record's.

    Attributes:
        net: The network.
        parts: Parameter of the network -> which parts of the common weight it is, as for :class:`JoinedWeight`. One
            that is not there is the first rows and columns.
    """

    net: StaticNet = dataclasses.field(repr=False, compare=False)
    parts: Mapping[str, Parts] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.net.resolution != self.resolution:
            raise ExportError(
                f"subnet {show(self.name)} has resolution {self.resolution}, but its network {self.net.resolution}"
            )


class Bundle(NamedTuple):
    """What a bundle holds. The networks' weights are views of one set; nothing is copied from one to another.

    A weight that is several parts of the common one is joined when it is read.
    """

    subnets: tuple[BundledSubnet, ...]
    preprocessing: dict[str, Any]


def round_bn_statistics(statistics: Tensor) -> Tensor:
    """Rounds BN statistics to what a bundle stores, so that every format of an export is the same network.

    A number keeps 11 bits, as in float16, whose range is shifted by a power of two to the tensor's largest magnitude.
    That holds for numbers down to 2**-29 of this magnitude; the error of smaller ones is below 2**-38 of it. Rounding
    again changes nothing.

    Args:
        statistics: float32, finite, of any shape: a running mean or variance.

    Returns:
        The rounded numbers, of the same shape and dtype.

    Raises:
        ExportError: The statistics are not finite, or not float32.
    """
    values, exponent = _encode(statistics)
    return _decode(values, torch.tensor([exponent]), [len(values)]).view_as(statistics).to(statistics.device)


def save_bundle(
    path: str | os.PathLike[str], subnets: Sequence[BundledSubnet], preprocessing: Mapping[str, Any]
) -> None:
    """Writes subnets of one supernet into one file, each weight once.

    A weight of a subnet must be the first rows and columns of the same weight of every larger one, or the parts of it
    that :attr:`BundledSubnet.parts` says, as of layers behind a concatenation. BN statistics are
    stored per subnet as :func:`round_bn_statistics` rounds them; BN's counters of batches are not stored.

    Args:
        path: The file, by convention ``*.safetensors``; its folder must exist. Replaced if it is there.
        subnets: At least one, with unique names and rounded BN statistics.
        preprocessing: What is done to images before a network is called; JSON-able.

    Raises:
        ExportError: There is no subnet, two have one name, weights are not shared or not finite, or BN statistics are
            not rounded. Nothing is written then.
    """
    if not subnets:
        raise ExportError(f"no subnet to write to {path}; choose at least one")
    names = [subnet.name for subnet in subnets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ExportError(f"two subnets are named {show(min(twice))}; give each its own name")
    tensors = _share_weights(subnets)
    for index, subnet in enumerate(subnets):
        tensors |= _pack_statistics(index, subnet)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    tensors[_DESCRIPTION] = _pack_description(subnets, preprocessing, size)
    write_tensors(path, tensors)


def load_bundle(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Bundle:
    """Reads a bundle. The file need not be trusted: it holds data only, all of which is checked.

    Args:
        path: The file.
        device: Where the weights are to be.

    Returns:
        The subnets, in the order in which they were saved, and the preprocessing. The networks are in eval mode,
        without gradients; their weights are views of one set.

    Raises:
        ExportError: The file is missing, damaged, or not a bundle; the message says what is wrong.

    Example:
        >>> subnets, preprocessing = load_bundle("export/bundle.safetensors")  # doctest: +SKIP
    """
    if not Path(path).is_file():
        raise ExportError(f"{path} does not exist or is not a file; give the bundle that the export wrote")
    file = read_tensors(Path(path))
    with checked(str(path), file.is_intact()):
        return _Reader(file.tensors, file.size, torch.device(device)).read()


class _Reader:
    """Builds subnets out of a file's tensors, and keeps account of which of them are used."""

    def __init__(self, tensors: Mapping[str, Tensor], file_size: int, device: torch.device) -> None:
        self.tensors = {
            name: tensor.to(device) if name.startswith(_WEIGHTS) else tensor for name, tensor in tensors.items()
        }
        self.file_size = file_size
        self.device = device
        self.used: dict[str, torch.Size] = {}

    def read(self) -> Bundle:
        description = _unpack_description(self.tensor(_DESCRIPTION), self.file_size)
        nodes, preprocessing = description["nodes"], description["preprocessing"]
        subnets: list[BundledSubnet] = []
        for index, entry in enumerate(description["subnets"]):
            try:
                subnets.append(self.subnet(index, entry, nodes))
            except (ExportError, TypeError) as error:
                raise ExportError(f"subnet {index}: {error}") from error
        names = [subnet.name for subnet in subnets]
        if len(set(names)) < len(names):
            raise ExportError("two subnets have the same name; export the bundle again")
        for name, tensor in self.tensors.items():
            if self.used.get(name) != tensor.shape:
                raise ExportError(f"tensor {show(name)} is more than the subnets use; export the bundle again")
        # Once for what all subnets share.
        check_finite({name: tensor for name, tensor in self.tensors.items() if name.startswith(_WEIGHTS)})
        return Bundle(tuple(subnets), preprocessing)

    def subnet(self, index: int, entry: Mapping[str, Any], nodes: Sequence[Any]) -> BundledSubnet:
        record = SubnetRecord.from_record(entry)
        listed = entry.get("parts", {})
        joined: dict[str, tuple[Sequence[int], Parts]] = {}
        spec = {"format": NET_FORMAT, "resolution": record.resolution, "nodes": [nodes[i] for i in entry["nodes"]]}
        net = StaticNet.build(spec, lambda net: self.state(index, net, listed, joined))
        if unknown := listed.keys() - joined.keys():
            raise ExportError(f"it has parts of {show(min(unknown))}, which is none of its weights")
        for name, (shape, parts) in joined.items():
            join(net, name, self.tensors[name], shape, parts)
        return BundledSubnet(net=net, parts={name: parts for name, (_, parts) in joined.items()}, **record.to_json())

    def state(
        self,
        index: int,
        net: StaticNet,
        listed: Mapping[str, Any],
        joined: dict[str, tuple[Sequence[int], Parts]],
    ) -> dict[str, Tensor]:
        """The state dict of a subnet, its weights views; of the ``listed``, which go to ``joined``, only shapes."""
        wanted = _statistics(net)
        state = {
            name: torch.zeros((), dtype=torch.int64, device=self.device)
            for name, _ in net.named_buffers()
            if name not in wanted
        }
        for name, parameter in net.named_parameters():
            if name in listed:
                parts = parts_from_json(name, listed[name], parameter.shape)
                joined[name] = (parameter.shape, parts)
                view = self.prefix(name, torch.Size(extent(parameter.shape, parts)))
                state[name] = view.new_zeros(()).expand(parameter.shape)
            else:
                state[name] = self.prefix(name, parameter.shape)
        if wanted:
            values, exponents = self.tensor(_VALUES.format(index)), self.tensor(_EXPONENTS.format(index))
            for what, tensor, dtype, size in (
                ("BN statistics", values, torch.float16, sum(tensor.numel() for tensor in wanted.values())),
                ("exponents of the BN statistics", exponents, torch.int16, len(wanted)),
            ):
                if tensor.dtype != dtype or tensor.shape != (size,):
                    found = f"{tensor.dtype} {tuple(tensor.shape)}"
                    raise ExportError(f"its {what} are {found} instead of {dtype} ({size},); export the bundle again")
            if any(abs(exponent) > _MAX_EXPONENT for exponent in exponents.tolist()):
                raise ExportError(f"an exponent of its BN statistics is beyond {_MAX_EXPONENT}; copy the bundle again")
            sizes = [tensor.numel() for tensor in wanted.values()]
            statistics = _decode(values, exponents, sizes)
            check_finite({_VALUES.format(index): statistics})
            state |= zip(wanted, statistics.to(self.device).split(sizes), strict=True)
        return state

    def prefix(self, name: str, shape: torch.Size) -> Tensor:
        full = self.tensor(name)
        if full.dim() != len(shape) or any(n > available for n, available in zip(shape, full.shape, strict=True)):
            raise ExportError(f"it needs {show(name)} of {tuple(shape)}, but {tuple(full.shape)} are there")
        self.used[name] = torch.Size(map(max, shape, self.used[name]))
        return full[tuple(slice(n) for n in shape)]

    def tensor(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise ExportError(f"tensor {show(name)} is missing; export the bundle again")
        tensor = self.tensors[name]
        # A weight's use is known when all subnets are built; any other tensor is used as a whole.
        self.used.setdefault(name, torch.Size([0] * tensor.dim()) if name.startswith(_WEIGHTS) else tensor.shape)
        return tensor


def _statistics(net: StaticNet) -> dict[str, Tensor]:
    """Running means and variances, without BN's counters of batches."""
    return {name: buffer for name, buffer in net.named_buffers() if not name.endswith(".num_batches_tracked")}


def _share_weights(subnets: Sequence[BundledSubnet]) -> dict[str, Tensor]:
    """Every weight at the largest width that occurs. What no subnet uses is zero."""
    weights: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for subnet in subnets:
        with torch.device("meta"):
            check_tensors(StaticNet(subnet.net.spec).state_dict(), subnet.net.state_dict())
        check_finite(subnet.net.state_dict())
        for name, parameter in subnet.net.named_parameters():
            own = extent(parameter.shape, subnet.parts.get(name, {}))
            shape = shapes.setdefault(name, own)
            if len(shape) != parameter.dim():
                raise ExportError(f"{show(name)} of subnet {show(subnet.name)} has other dimensions; bundle it alone")
            shapes[name] = tuple(map(max, shape, own))
    for write in (True, False):  # the second round finds what a later subnet has overwritten with other numbers
        for subnet in subnets:
            for name, parameter in subnet.net.named_parameters():
                full = weights.setdefault(name, torch.zeros(shapes[name], dtype=parameter.dtype))
                where = place(parameter.shape, subnet.parts.get(name, {}))
                if write:
                    full[where] = parameter.detach().cpu()
                elif not torch.equal(full[where], parameter.detach().cpu()):
                    raise ExportError(
                        f"{show(name)} of subnet {show(subnet.name)} is not a part of the same weight of the others; a "
                        "bundle holds subnets of one supernet"
                    )
    return weights


def _pack_statistics(index: int, subnet: BundledSubnet) -> dict[str, Tensor]:
    statistics = _statistics(subnet.net)
    if not statistics:
        return {}
    values, exponents = [], []
    for name, tensor in statistics.items():
        rounded, exponent = _encode(tensor)
        if not torch.equal(_decode(rounded, torch.tensor([exponent]), [len(rounded)]), tensor.cpu()):
            raise ExportError(
                f"{show(name)} of subnet {show(subnet.name)} has more digits than a bundle stores, so that the subnet "
                "would differ from its other exports; use round_bn_statistics() on all BN statistics first"
            )
        values.append(rounded)
        exponents.append(exponent)
    return {
        _VALUES.format(index): torch.cat(values),
        _EXPONENTS.format(index): torch.tensor(exponents, dtype=torch.int16),
    }


def _encode(statistics: Tensor) -> tuple[Tensor, int]:
    """float16 (N,), and the exponent of the power of two to multiply them by."""
    if statistics.dtype != torch.float32 or not torch.isfinite(statistics).all():
        raise ExportError(f"BN statistics are {statistics.dtype} or not finite; calibrate the float32 network again")
    exact = statistics.detach().cpu().double().flatten()
    fraction, exponent = math.frexp(float(exact.abs().max()) if len(exact) else 0.0)
    # If the largest number is rounded up to a power of two, it has the exponent that it would have the next time.
    exponent += round(fraction * 2**_BITS) == 2**_BITS
    exponent -= _LARGEST_EXPONENT
    return (exact * math.ldexp(1.0, -exponent)).half(), exponent


def _decode(values: Tensor, exponents: Tensor, sizes: Sequence[int]) -> Tensor:
    """float32 (N,): the values of tensors of ``sizes`` elements, one after another, each scaled by its exponent."""
    scales = torch.tensor([math.ldexp(1.0, exponent) for exponent in exponents.tolist()], dtype=torch.float64)
    return (values.double() * scales.repeat_interleave(torch.tensor(sizes))).float()


def _pack_description(subnets: Sequence[BundledSubnet], preprocessing: Mapping[str, Any], file_size: int) -> Tensor:
    """Everything but weights and BN statistics, compressed. A node that several subnets share is written once."""
    numbers: dict[str, int] = {}
    programs: list[list[int]] = [[] for _ in subnets]
    # Position by position, so that nodes that are alike are near each other: that is what zlib can make use of.
    for position in range(max(len(subnet.net.spec["nodes"]) for subnet in subnets)):
        for subnet, program in zip(subnets, programs, strict=True):
            for node in subnet.net.spec["nodes"][position : position + 1]:
                program.append(numbers.setdefault(json.dumps(node, sort_keys=True), len(numbers)))
    parts = [{name: parts_to_json(own) for name, own in subnet.parts.items()} for subnet in subnets]
    description = {
        "format": FORMATS[any(parts)],
        "preprocessing": dict(preprocessing),
        "subnets": [
            {**subnet.to_json(), "nodes": nodes} | ({"parts": own} if own else {})
            for subnet, nodes, own in zip(subnets, programs, parts, strict=True)
        ],
        "nodes": [json.loads(node) for node in numbers],
    }
    try:
        check_nesting(description)
        data = json.dumps(description, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ExportError(f"the preprocessing is not JSON: {error}; use plain Python values") from error
    _check_description(description, _description_limit(file_size))
    return torch.frombuffer(bytearray(zlib.compress(data, 9)), dtype=torch.uint8)


def _description_limit(file_size: int) -> int:
    """Most bytes of the description, and of all subnets' operations written out."""
    return min(_MAX_DESCRIPTION_BYTES, _DESCRIPTION_BYTES_PER_BYTE * file_size + _LEAST_DESCRIPTION_BYTES)


def _unpack_description(packed: Tensor, file_size: int) -> dict[str, Any]:
    if packed.dtype != torch.uint8 or packed.dim() != 1:
        raise ExportError(f"the description is {packed.dtype} {tuple(packed.shape)} instead of bytes; copy it again")
    inflater = zlib.decompressobj()
    limit = _description_limit(file_size)
    try:
        data = inflater.decompress(packed.numpy().tobytes(), limit)
        if inflater.unconsumed_tail:
            raise ExportError(f"the description has more than {limit} bytes; it is not one of ours")
        if not inflater.eof or inflater.unused_data:
            raise ValueError("it is cut off or followed by something")
        description = parse_json(data)
    except ExportError:
        raise
    except (ValueError, zlib.error) as error:
        raise ExportError(f"the description is damaged ({show(str(error))}); copy it again") from error
    _check_description(description, limit)
    return description


def _check_description(description: Any, limit: int) -> None:
    """Checks the outermost levels and the amount of all; the subnets are checked one by one when they are built."""
    types = {"format": int, "preprocessing": dict, "subnets": list, "nodes": list}
    if not isinstance(description, dict) or description.keys() != types.keys():
        found = sorted(description) if isinstance(description, dict) else description
        raise ExportError(f"the description has {show(found)} instead of {sorted(types)}; it is not a bundle")
    for key, kind in types.items():
        if type(description[key]) is not kind:
            raise ExportError(f"{key} is {show(description[key])}; it must be of type {kind.__name__}")
    if description["format"] not in FORMATS:
        raise ExportError(f"format {description['format']} is unknown, {FORMATS} are supported; upgrade pss_razor")
    subnets = description["subnets"]
    if not 1 <= len(subnets) <= _MAX_SUBNETS:
        raise ExportError(f"there are {len(subnets)} subnets; a bundle has 1 to {_MAX_SUBNETS}")
    optional = OPTIONAL_CHOICES | ({"parts"} if description["format"] > 1 else set())
    fields = {field.name for field in dataclasses.fields(SubnetRecord)} | {"nodes"} | optional
    sizes = [_extent(node) for node in description["nodes"]]
    operations = amount = 0
    for index, subnet in enumerate(subnets):
        if not isinstance(subnet, dict) or subnet.keys() | optional != fields:
            found = sorted(subnet) if isinstance(subnet, dict) else subnet
            raise ExportError(f"subnet {index}: it has {show(found)} instead of {sorted(fields)}; export it again")
        positions = subnet["nodes"]
        if not isinstance(positions, list) or not all(type(i) is int and 0 <= i < len(sizes) for i in positions):
            raise ExportError(
                f"subnet {index}: its nodes are {show(positions)}; they must be numbers below {len(sizes)}"
            )
        parts = subnet.get("parts", {})
        if not isinstance(parts, dict):
            raise ExportError(f"subnet {index}: its parts are {show(parts)}; they must be a table of weights")
        amount += sum(len(json.dumps(own)) + _JOINED_BYTES for own in parts.values())
        operations += len(positions)
        amount += sum(sizes[i] for i in positions)
    if amount > limit:
        raise ExportError(
            f"the subnets have {operations} operations in all, which take {amount} bytes written out; a bundle of this "
            f"size has {limit} at most"
        )


def _extent(node: Any) -> int:
    """Bytes that an operation counts for: its JSON, and more if torch takes long to check it."""
    target = node.get("target") if isinstance(node, dict) else None
    name = target.rpartition(".")[2].rstrip("_") if isinstance(target, str) else ""
    return len(json.dumps(node)) + _EXTRA_BYTES.get(name, 0)
