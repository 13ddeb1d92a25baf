"""What runs one subnet at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pss_razor.core.space.subnet import Subnet


class ActiveSubnetMixin:
    """The active subnet of something that can :meth:`activate` others, which sets ``_active``."""

    _active: Subnet | None = None

    @property
    def active_subnet(self) -> Subnet:
        """The subnet that a forward pass runs now."""
        assert self._active is not None, f"this {type(self).__name__} has no subnet yet"
        return self._active

    def activate(self, subnet: Any) -> None:
        """Switch to a subnet."""
        raise NotImplementedError

    @contextlib.contextmanager
    def active(self, subnet: Any) -> Iterator[None]:
        """Run the body with a subnet active, then return to the one before."""
        before = self.active_subnet
        self.activate(subnet)
        try:
            yield
        finally:
            self.activate(before)
