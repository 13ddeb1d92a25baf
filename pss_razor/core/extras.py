"""What a part needs beyond the base installation."""

from __future__ import annotations

import importlib.util

from pss_razor.core.errors import MissingPackageError


def check_extra(extra: str, *packages: str) -> None:
    """Check that the packages of an extra of ``pss_razor`` are there, by the names they are imported by.

    Raises:
        MissingPackageError: Some are not; names them, and the extra.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingPackageError(
            f"this needs {', '.join(missing)}, not installed here: pip install 'pss_razor[{extra}]'"
        )
