"""What a part needs beyond the base installation."""

from __future__ import annotations

import importlib.util

from pss_razor.core.errors import MissingPackageError


def check_extra(extra: str, *packages: str, what: str = "this") -> None:
    """Check that the packages of an extra of ``pss_razor`` are there, by the names they are imported by.

    Args:
        extra: The extra that has them.
        *packages: The packages.
        what: What needs them, for the error.

    Raises:
        MissingPackageError: Some are not; names them, and the extra.
    """
    check_packages(f"'pss_razor[{extra}]'", *packages, what=what)


def check_packages(requirement: str, *packages: str, what: str = "this") -> None:
    """:func:`check_extra` of packages that no extra has; ``requirement`` is what ``pip install`` is given."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"{what} needs {', '.join(missing)}, not installed here: pip install {requirement}")
