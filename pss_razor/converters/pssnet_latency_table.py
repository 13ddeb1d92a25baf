"""Latency tables of the PSS-Net authors' program."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from pss_razor.checkpoints.numpy_stand_ins import numpy_scalar_stand_ins
from pss_razor.checkpoints.pickle_check import (
    Instance,
    Key,
    Rule,
    UnknownNameError,
    check_extent,
    check_keys,
    check_pickle,
)
from pss_razor.core import ConfigError, is_scalar
from pss_razor.estimators.latency.latency_table import BlockGeometry


def read_pssnet_latencies(path: str | Path) -> dict[BlockGeometry, float]:
    """Read a pickled table, ``BlockCfg(block_type, in_size, cin, cout, cmid, kernel_size, stride, padding)`` -> µs.

    Pickles execute what they name. This reader knows three names, ``__main__.BlockCfg`` and the two that numpy's
    scalars need, and serves stand-ins of its own for them; a file that names anything else is refused.

    Returns:
        Block -> microseconds an image.

    Raises:
        ConfigError: The file is missing, damaged, unsafe, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"latency table {path} does not exist")
    try:
        data = path.read_bytes()
        check_pickle(io.BytesIO(data), len(data), _NAMES)
        content = _Unpickler(data).load()
        check_extent(content, len(data))
    except UnknownNameError as error:
        raise ConfigError(
            f"{path} holds more than a latency table, refused: it asks for {error}; only __main__.BlockCfg and numpy's "
            "scalars are known"
        ) from error
    except Exception as error:  # whatever damaged bytes make of the unpickler; nothing of this project runs in there
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"{path} is not a pickled latency table, or damaged: {type(error).__name__}: {reason[:200]}"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path} is not a latency table: it holds no blocks but a {type(content).__name__}")
    return {_geometry(path, block): _latency_us(path, block, value) for block, value in content.items()}


def _block(fields: tuple[Any, ...]) -> Key:
    check_keys(fields)
    return Key("a BlockCfg")


def _any_number(arguments: tuple[Any, ...]) -> Key:
    return Key("a number")


def _dtype(arguments: tuple[Any, ...]) -> Instance:
    return Instance("a dtype", lambda state: None)


_NAMES: dict[str, Rule | None] = {
    "__main__.BlockCfg": _block,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _any_number,
    "numpy._core.multiarray.scalar": _any_number,
}


class _Unpickler(pickle.Unpickler):
    """Serves stand-ins, new ones for each file: a pickle can set attributes of the objects that it gets."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))

        class BlockCfg:
            def __new__(cls, *fields: Any) -> BlockGeometry:  # type: ignore[misc]
                return BlockGeometry(*fields)

        self._known = {"__main__.BlockCfg": BlockCfg, **numpy_scalar_stand_ins()}

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path not in self._known:
            raise UnknownNameError(path)
        return self._known[path]


def _geometry(path: Path, block: Any) -> BlockGeometry:
    """A block whose fields are checked; sizes that a kind of block lacks are None."""
    if not isinstance(block, BlockGeometry):
        raise ConfigError(f"{path} is not a latency table: {block!r:.200} is not a BlockCfg")
    block_type, *sizes, widths = block
    always, optional = sizes[:3], sizes[3:]
    if (
        not isinstance(block_type, str)
        or not all(type(size) is int for size in always)
        or not all(size is None or type(size) is int for size in optional)
        or widths is not None  # of converted networks
    ):
        raise ConfigError(f"latency table {path}: {tuple(block)!r:.200} is not a kind of block and its sizes")
    return BlockGeometry(*block)


def _latency_us(path: Path, block: Any, value: Any) -> float:
    if not is_scalar(value):
        raise ConfigError(f"latency table {path}: {tuple(block)!r:.200} has {value!r:.200} instead of microseconds")
    return float(value)
