"""Static networks and their manifest on disk: JSON and safetensors, checked completely before use.

Loading takes time and memory in proportion to the sizes of the files, whatever they say: JSON takes 40 bytes for each
of its bytes, the operations of a network about as many, and weights three times their size. Files of weights have a
digest of their content, which shows damage, not malice: whoever changes a file can write another digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pss_razor.core import ExportError, atomic_write, check_nesting, is_number, parse_json
from pss_razor.deploy.subnet_record import SubnetRecord
from pss_razor.static.static_net import StaticNet, check_finite, check_tensors, show

SPEC_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1

# The description of a network with a thousand layers has about half a MiB.
_MAX_JSON_BYTES = 16 * 2**20
# Longer than any path may be. Resolving a path takes time that grows with the square of its length.
_MAX_PATH_LENGTH = 1024
# In the metadata of a safetensors file.
_DIGEST = "sha256"


def save_subnet(net: StaticNet, directory: str | os.PathLike[str]) -> dict[str, str]:
    """Writes a static network.

    Args:
        net: The network.
        directory: Folder, made if it is not there.

    Returns:
        The names of the files in ``directory``: ``{"spec": "model.json", "weights": "model.safetensors"}``.

    Raises:
        ExportError: The weights are not finite, or not of the dtype they had at export.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    check_tensors(_meta_state(net), tensors)
    check_finite(tensors)
    write_tensors(folder / WEIGHTS_FILE, tensors, net.spec)
    atomic_write(folder / SPEC_FILE, _to_json(net.spec))
    return {"spec": SPEC_FILE, "weights": WEIGHTS_FILE}


def load_subnet(directory: str | os.PathLike[str]) -> StaticNet:
    """Reads a static network. The files need not be trusted: they hold data only, all of which is checked.

    Args:
        directory: Folder with ``model.json`` and ``model.safetensors``.

    Returns:
        The network on the CPU, in eval mode, its parameters without gradients.

    Raises:
        ExportError: A file is missing, damaged, or not a static network; the message names the file and what is wrong.

    Example:
        >>> logits = load_subnet("export/flops_150")(images)  # doctest: +SKIP
    """
    folder = Path(directory)
    spec = _read_json(folder / SPEC_FILE)
    file = read_tensors(folder / WEIGHTS_FILE)
    with checked(f"{folder} ({SPEC_FILE}, {WEIGHTS_FILE})", file.is_intact(spec)):
        return StaticNet.from_tensors(spec, file.tensors)


def write_manifest(directory: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of an export folder.

    Args:
        directory: Folder that all file names in the manifest are relative to; made if it is not there.
        manifest: As :func:`read_manifest` returns it.

    Raises:
        ExportError: The manifest has another form.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST_FILE
    _check_manifest(manifest, path)
    try:
        check_nesting(manifest)
        data = json.dumps(manifest, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ExportError(f"the manifest for {path} is not JSON: {error}; use plain Python values") from error
    atomic_write(path, f"{data}\n".encode())


def read_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the manifest of an export folder.

    Args:
        directory: Folder with ``manifest.json``.

    Returns:
        ``{"format": 1, "created": str, "versions": {name: str}, "preprocessing": {...}, "subnets": [...]}``. A subnet
        has ``metric`` (such as "flops"), ``target`` and ``resource`` (in the unit of the metric), ``accuracy`` (None if
        it was not evaluated), ``parity_error`` (largest difference to the supernet's logits, over the largest logit),
        ``channels`` (search group -> channels) and, where there are such, ``ops`` and ``values``, as
        :meth:`SearchSpace.to_record` makes them, ``resolution`` in pixels, and ``files`` (kind -> path relative to
        ``directory``), and may have more. No two have the same metric and target.

    Raises:
        ExportError: The file is missing or damaged, a field is missing or has a wrong type, or a file name leads
            outside of ``directory``.
    """
    path = Path(directory) / MANIFEST_FILE
    manifest = _read_json(path)
    _check_manifest(manifest, path)
    return manifest


def record_of_entry(entry: Mapping[str, Any]) -> SubnetRecord:
    """What an entry of a manifest says of its subnet; those of version 0.1 may have neither name nor resources.

    Raises:
        ExportError: A field is missing, or has a wrong type or value.
    """
    metric, target, resource = (entry.get(key) for key in ("metric", "target", "resource"))
    name = f"{metric}_{target:g}" if isinstance(metric, str) and is_number(target) else "unnamed"
    return SubnetRecord.from_record({"name": name, "resources": {str(metric): resource}, **entry})


class TensorFile(NamedTuple):
    """What a safetensors file holds.

    Attributes:
        tensors: By name.
        digest: SHA-256 of the content as it was written; None in files of pss_razor 0.1.
        size: Bytes of the file.
    """

    tensors: dict[str, Tensor]
    digest: str | None
    size: int

    def is_intact(self, description: Any = None) -> bool:
        """Whether the content is what was written, as far as the file can tell."""
        return self.digest is None or self.digest == _digest(self.tensors, description)


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], description: Any = None) -> None:
    """Writes a safetensors file with a digest of its content.

    Args:
        path: The file.
        tensors: By name, on the CPU and contiguous.
        description: JSON-able; what belongs to the tensors and is in another file. The digest is of both.
    """
    # One key: safetensors writes several in any order, and the same content shall be the same file.
    metadata = {_DIGEST: _digest(tensors, description)}
    atomic_write(path, safetensors.torch.save(dict(tensors), metadata=metadata))


def read_tensors(path: Path) -> TensorFile:
    """Reads a safetensors file, without comparing its digest.

    Raises:
        ExportError: The file is missing, or damaged.
    """
    data = _read(path)
    try:
        tensors = safetensors.torch.load(data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise ExportError(
            f"{path} is truncated or not a safetensors file ({show(str(error))}); copy it again"
        ) from error
    metadata = header.get("__metadata__") or {}
    if not metadata.keys() <= {"format", _DIGEST}:
        raise ExportError(f"{path} is damaged or not one of our files: it says {show(metadata)}; copy it again")
    return TensorFile(tensors, metadata.get(_DIGEST), len(data))


@contextlib.contextmanager
def checked(what: str, intact: bool) -> Iterator[None]:
    """Adds the files' names to errors raised inside, and says if damage may be the cause.

    Args:
        what: Names of the files, for the message.
        intact: Whether their content is what was written; if not, there is an error even if nothing fails inside.

    Raises:
        ExportError: Something is wrong inside, or the files are not intact.
    """
    damage = "the content is not what was written (its SHA-256 differs), the file is damaged; copy it again"
    try:
        yield
    except ExportError as error:
        raise ExportError(f"{what}: {error}" if intact else f"{what}: {damage}. It shows in this: {error}") from error
    if not intact:
        raise ExportError(f"{what}: {damage}")


def _digest(tensors: Mapping[str, Tensor], description: Any) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _meta_state(net: StaticNet) -> dict[str, Any]:
    with torch.device("meta"):
        return StaticNet(net.spec).state_dict()


def _to_json(spec: Mapping[str, Any]) -> bytes:
    """JSON with one node a line, to be read and compared by people."""
    nodes = ",\n  ".join(json.dumps(node, allow_nan=False) for node in spec["nodes"])
    return f'{{"format": {spec["format"]}, "resolution": {spec["resolution"]}, "nodes": [\n  {nodes}\n]}}\n'.encode()


def _read(path: Path, limit: int | None = None) -> bytes:
    # A link to a device or a pipe is not a file either: reading it might never end.
    if not path.is_file():
        raise ExportError(f"{path} does not exist or is not a file; give the folder that the export wrote")
    if limit is not None and path.stat().st_size > limit:
        raise ExportError(f"{path} has {path.stat().st_size} bytes, more than {limit}; it is not one of our files")
    return path.read_bytes()


def _read_json(path: Path) -> Any:
    try:
        return parse_json(_read(path, _MAX_JSON_BYTES))
    except ExportError:
        raise
    except ValueError as error:
        raise ExportError(f"{path} is damaged or not JSON ({show(str(error))}); copy it again") from error


def _check_manifest(manifest: Any, path: Path) -> None:
    def check(good: bool, what: str, value: object, wanted: str) -> None:
        if not good:
            raise ExportError(f"{path}: {what} is {show(value)}; it must be {wanted}")

    check(isinstance(manifest, dict), "the manifest", manifest, "an object")
    version = manifest.get("format")
    check(
        type(version) is int and version == MANIFEST_FORMAT, "format", version, f"{MANIFEST_FORMAT}: upgrade pss_razor"
    )
    check(isinstance(manifest.get("created"), str), "created", manifest.get("created"), "a date as text")
    versions = manifest.get("versions")
    check(_is_map(versions, str), "versions", versions, "an object of package name -> version")
    check(isinstance(manifest.get("preprocessing"), dict), "preprocessing", manifest.get("preprocessing"), "an object")
    check(isinstance(manifest.get("subnets"), list), "subnets", manifest.get("subnets"), "a list")

    seen: set[tuple[str, float]] = set()
    for index, subnet in enumerate(manifest["subnets"]):
        what = f"subnets[{index}]"
        check(isinstance(subnet, dict), what, subnet, "an object")
        for key in ("resource", "parity_error"):
            check(is_number(subnet.get(key)), f"{what}.{key}", subnet.get(key), "a finite number")
        try:
            record = record_of_entry(subnet)
        except ExportError as error:
            raise ExportError(f"{path}: {what}.{error}") from error
        name = (record.metric, record.target)
        check(name not in seen, f"(metric, target) of {what}", name, "unique")
        seen.add(name)
        channels = subnet.get("channels")
        check(_are_choices(channels), f"{what}.channels", channels, "counts or names of ops")
        check(_is_map(subnet.get("files"), str), f"{what}.files", subnet.get("files"), "an object of kind -> file name")
        for kind, file in subnet["files"].items():
            check(
                _is_inside(file, path.parent), f"{what}.files[{show(kind)}]", file, "a relative path inside its folder"
            )


def _is_map(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and type(item) is kind for key, item in value.items())


def _are_choices(channels: Any) -> bool:
    """Whether it is a map from search groups to positive counts or names."""
    return isinstance(channels, dict) and all(
        isinstance(name, str) and (isinstance(choice, str) or (type(choice) is int and choice > 0))
        for name, choice in channels.items()
    )


def _is_inside(file: str, folder: Path) -> bool:
    """Whether a path from a manifest names something below the folder, on every system and through all links."""
    if len(file) > _MAX_PATH_LENGTH:
        return False
    windows = PureWindowsPath(file)
    if "\0" in file or "\\" in file or windows.drive or PurePosixPath(file).is_absolute() or ".." in windows.parts:
        return False
    try:
        resolved, root = (folder / file).resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no name of a file
        return False
    return resolved != root and resolved.is_relative_to(root)
