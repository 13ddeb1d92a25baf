"""The file formats of one exported subnet: written, and read back to be run."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pss_razor.core import ConfigError, atomic_write, check_extra
from pss_razor.deploy import load_subnet, save_subnet
from pss_razor.export.onnx_export import INPUT_NAME, OPSET, program_to_onnx
from pss_razor.export.plain_network import PlainNetwork
from pss_razor.export.pt2_export import program_to_pt2
from pss_razor.export.traced_program import trace_program
from pss_razor.static import StaticNet
from pss_razor.version import __version__

BUNDLE = "bundle"
Run = Callable[[Tensor], Tensor]


class NetworkWithExample:
    """A network, and its program for images of one size, traced by the first format that needs it for all of them.

    Args:
        net: The network.
        example: Images (2, 3, H, W).
    """

    def __init__(self, net: StaticNet | PlainNetwork, example: Tensor) -> None:
        self.net = net
        self.example = example

    @functools.cached_property
    def program(self) -> ExportedProgram:
        """See :func:`~pss_razor.export.traced_program.trace_program`."""
        return trace_program(self.net, self.example)


@dataclass(frozen=True)
class ExportFormat:
    """A format with a file, or several, for each subnet.

    Args:
        files: Kind -> file name, as the manifest lists them.
        max_parity_error: Largest difference from the supernet's logits, relative to the largest logit. Static and
            dynamic convolutions add up in different orders, and folding BN into a conv rounds its weights.
        save: Writes the files of a network into a folder.
        load: Reads them back; the result takes images of the example's size.
        resizes: Whether the network takes images of any size, and not of the example's alone.
        facts: Further entries of each subnet in the manifest.
        packages: Packages that write the files; files of another version of them are written anew.
    """

    files: dict[str, str]
    max_parity_error: float
    save: Callable[[NetworkWithExample, Path], object]
    load: Callable[[Path], Run]
    resizes: bool = False
    facts: dict[str, Any] | None = None
    packages: tuple[str, ...] = ("torch",)


def _save_torch(network: NetworkWithExample, folder: Path) -> None:
    assert isinstance(network.net, StaticNet)
    save_subnet(network.net, folder)


def _save_pt2(network: NetworkWithExample, folder: Path) -> None:
    atomic_write(folder / "model.pt2", program_to_pt2(network.program))


def _load_pt2(folder: Path) -> Run:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # raised inside torch
        return torch.export.load(folder / "model.pt2").module()


def _save_onnx(network: NetworkWithExample, folder: Path) -> None:
    atomic_write(folder / "model.onnx", program_to_onnx(network.program))


def _load_onnx(folder: Path) -> Run:
    import onnxruntime  # an extra, checked before

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same digits on any number of cores
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {INPUT_NAME: images.numpy()})[0])


FORMATS = {
    "torch": ExportFormat(
        files={"spec": "model.json", "weights": "model.safetensors"},
        max_parity_error=1e-5,
        save=_save_torch,
        load=load_subnet,
        resizes=True,
    ),
    "pt2": ExportFormat(files={"pt2": "model.pt2"}, max_parity_error=1e-5, save=_save_pt2, load=_load_pt2),
    "onnx": ExportFormat(
        files={"onnx": "model.onnx"},
        max_parity_error=1e-4,
        save=_save_onnx,
        load=_load_onnx,
        facts={"onnx_opset": OPSET},
        packages=("torch", "onnx", "onnxscript"),
    ),
}


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Package -> version, of this package and those given."""
    return {"pss_razor": __version__, **{package: importlib.metadata.version(package) for package in packages}}


def parse_formats(text: str) -> list[str]:
    """Formats of a command line, such as ``torch,onnx,bundle``.

    Raises:
        ConfigError: One is unknown.
        MissingPackageError: The packages of one are not installed.
    """
    names = list(dict.fromkeys(text.split(",")))
    check_formats(names, f"--formats {text}")
    return names


def check_formats(names: Sequence[str], setting: str) -> None:
    """Check that formats are known, and that their packages are installed.

    Args:
        names: The formats.
        setting: What gives them, for errors.

    Raises:
        ConfigError: There is none, or one is unknown.
        MissingPackageError: The packages of one are not installed.
    """
    if not names:
        raise ConfigError(f"{setting}: give at least one of {[*FORMATS, BUNDLE]}")
    for name in names:
        if name not in FORMATS and name != BUNDLE:
            raise ConfigError(f"{setting}: unknown format {name!r}; choose from {[*FORMATS, BUNDLE]}")
    if "onnx" in names:
        check_extra("onnx", "onnx", "onnxscript", "onnxruntime", what="ONNX")
