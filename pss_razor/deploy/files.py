"""Static networks and their manifest on disk: JSON and safetensors, checked completely before use."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pss_razor.core import ExportError, atomic_write
from pss_razor.deploy.static_net import MAX_NESTING, MAX_RESOLUTION, StaticNet, check_nesting, check_tensors, show
from pss_razor.deploy.subnet_record import OPTIONAL_CHOICES

SPEC_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1

# The description of a network with a thousand layers has about half a MiB.
_MAX_JSON_BYTES = 16 * 2**20


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
    atomic_write(folder / WEIGHTS_FILE, safetensors.torch.save(tensors, metadata={"format": "pt"}))
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
    tensors = read_tensors(folder / WEIGHTS_FILE)
    try:
        return StaticNet.from_tensors(spec, tensors)
    except ExportError as error:
        raise ExportError(f"{folder} ({SPEC_FILE}, {WEIGHTS_FILE}): {error}") from error


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
        it was not evaluated), ``parity_error`` (largest difference of logits to the supernet, of the largest logit),
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        ExportError: The file is missing, or damaged.
    """
    try:
        return safetensors.torch.load(_read(path))
    except (SafetensorError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(
            f"{path} is truncated or not a safetensors file ({show(str(error))}); copy it again"
        ) from error


def parse_json(data: bytes) -> Any:
    """Parses JSON that need not be trusted.

    Raises:
        ValueError: It is not JSON, or nested so deeply that it would exhaust the stack.
    """
    # json recurses. Python's own limit guards the stack, but libraries raise it (mmrazor does) until it does not.
    brackets = np.frombuffer(re.sub(rb'"(?:[^"\\]|\\.)*"', b"", data), dtype=np.uint8)
    opening, closing = np.isin(brackets, list(b"[{")), np.isin(brackets, list(b"]}"))
    if np.max(np.cumsum(opening.astype(int) - closing), initial=0) > MAX_NESTING:
        raise ValueError(f"it nests deeper than {MAX_NESTING} levels")
    return json.loads(data)


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
        check(isinstance(subnet.get("metric"), str), f"{what}.metric", subnet.get("metric"), "text")
        for key in ("target", "resource", "parity_error"):
            check(_is_number(subnet.get(key)), f"{what}.{key}", subnet.get(key), "a finite number")
        accuracy = subnet.get("accuracy", "missing")
        good = accuracy is None or _is_number(accuracy)
        check(good, f"{what}.accuracy", accuracy, "a finite number, or null if it was not evaluated")
        name = (subnet["metric"], subnet["target"])
        check(name not in seen, f"(metric, target) of {what}", name, "unique")
        seen.add(name)
        channels = subnet.get("channels")
        check(_are_choices(channels), f"{what}.channels", channels, "counts or names of ops")
        for key in OPTIONAL_CHOICES & subnet.keys():
            good = isinstance(subnet[key], dict) and all(
                isinstance(choice, str) or _is_number(choice) for choice in subnet[key].values()
            )
            check(good, f"{what}.{key}", subnet[key], "an object of search group -> text or number")
        size = subnet.get("resolution")
        good = type(size) is int and 1 <= size <= MAX_RESOLUTION
        check(good, f"{what}.resolution", size, f"an integer from 1 to {MAX_RESOLUTION}")
        check(_is_map(subnet.get("files"), str), f"{what}.files", subnet.get("files"), "an object of kind -> file name")
        for kind, file in subnet["files"].items():
            check(
                _is_inside(file, path.parent), f"{what}.files[{show(kind)}]", file, "a relative path inside its folder"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


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
    windows = PureWindowsPath(file)
    if "\0" in file or "\\" in file or windows.drive or PurePosixPath(file).is_absolute() or ".." in windows.parts:
        return False
    try:
        resolved, root = (folder / file).resolve(), folder.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return False
    return resolved != root and resolved.is_relative_to(root)
