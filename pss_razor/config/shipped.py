"""The configs that come with the package: in ``.mim/configs``, where OpenMMLab's packages have them."""

from __future__ import annotations

import difflib
from pathlib import Path

from pss_razor.core import ConfigError

_PREFIX = "pss_razor::"


def config_folder() -> Path:
    """The folder of the shipped configs; in a checkout a link to ``configs/``."""
    return Path(__file__).resolve().parents[1] / ".mim" / "configs"


def list_configs() -> dict[str, Path]:
    """The shipped configs that can be run: name below the config folder, such as ``pss/pss_mbv2_flops`` -> file."""
    folder = config_folder()
    names = ((path.relative_to(folder), path) for path in sorted(folder.rglob("*.py")))
    return {name.with_suffix("").as_posix(): path for name, path in names if name.parts[0] != "_base_"}


def find_config(name: str) -> Path:
    """The config file that is meant by a path, or by the name of a shipped one.

    Args:
        name: Path of a file; or ``pss_mbv2_flops``, ``pss/pss_mbv2_flops`` or ``pss_razor::pss/pss_mbv2_flops``, each
            with or without ``.py``.

    Raises:
        ConfigError: There is no such file or shipped config; names those that are nearest.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = list_configs()
    wanted = name.removeprefix(_PREFIX).removesuffix(".py").removeprefix("configs/")
    if wanted in shipped:
        return shipped[wanted]
    by_name = {short.rpartition("/")[2]: path for short, path in shipped.items()}
    if wanted in by_name:
        return by_name[wanted]
    near = difflib.get_close_matches(wanted.rpartition("/")[2], by_name, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the shipped ones are in {config_folder()}"
    raise ConfigError(f"config {name} does not exist; {hint}")
