"""The files of one exported network: written, read back and compared, in whatever process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pss_razor.core import ExportError
from pss_razor.export.formats import FORMATS, NetworkWithExample, Run
from pss_razor.export.plain_network import PlainNetwork
from pss_razor.static import StaticNet


@dataclass(frozen=True)
class NetworkFiles:
    """What is to be written of a network. Can be pickled if it is a static one.

    Args:
        net: The network.
        folder: Where its files go.
        formats: Of :data:`~pss_razor.export.formats.FORMATS`.
        images: Normalised images (N, 3, H, W) of the full resolution.
        logits: The supernet's (N, classes) for them.
        input_size: What formats that do not resize take: images of the network's ``"own"`` resolution, or of the
            ``"full"`` one.
    """

    net: StaticNet | PlainNetwork
    folder: Path
    formats: Sequence[str]
    images: Tensor
    logits: Tensor
    input_size: str

    def __getstate__(self) -> dict[str, Any]:
        assert isinstance(self.net, StaticNet)
        return {**vars(self), "net": (self.net.spec, dict(self.net.state_dict()))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "net": StaticNet.from_tensors(*state["net"])})


@torch.no_grad()
def write_files(wanted: NetworkFiles) -> Iterator[tuple[str, float]]:
    """Write the files of each format, and compare what they compute with the supernet's logits.

    Yields:
        Each format when its files are complete, with its parity error.

    Raises:
        ExportError: A network's logits differ from the supernet's by more than its format may; its files are removed.
    """
    own = inputs = wanted.images
    if wanted.input_size == "own":  # as the supernet's input resizer does it
        own = F.interpolate(own, (wanted.net.resolution,) * 2, mode="bilinear", align_corners=True)
    network = NetworkWithExample(wanted.net, own[:1].repeat(2, 1, 1, 1))
    wanted.folder.mkdir(exist_ok=True)
    for name in wanted.formats:
        own_format = FORMATS[name]
        with torch_threads(1):  # so that files and errors are the same in any process
            own_format.save(network, wanted.folder)
            images = inputs if own_format.resizes else own
            try:
                run = own_format.load(wanted.folder)
                error = check_parity(run, images, wanted.logits, own_format.max_parity_error, wanted.folder)
            except ExportError:
                for file in own_format.files.values():
                    (wanted.folder / file).unlink()
                raise
        yield name, error


def relative_error(logits: Tensor, expected: Tensor) -> float:
    """The largest difference between logits, relative to the largest expected logit."""
    return float((logits - expected).abs().max() / expected.abs().max())


def check_parity(run: Run, inputs: Tensor, expected: Tensor, limit: float, what: object) -> float:
    """The relative error of a network's logits; an error if it exceeds ``limit``."""
    error = relative_error(run(inputs), expected)
    if not error <= limit:
        raise ExportError(
            f"{what}: its logits differ from the supernet's by {error:.3g} of the largest logit, more than {limit}; "
            "please report the architecture"
        )
    return error


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many CPU threads of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
