"""A subnet as a value: the choice of each search group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Subnet(Mapping[str, Any]):
    """A subnet: one choice for each search group, the input resolution among them. Immutable and hashable.

    Two subnets are the same network exactly if their choices are equal, whatever multipliers they were drawn from.

    Args:
        choices: Search-group name -> plain Python value (int, float or str).

    Example:
        >>> Subnet({"stem": 32, "resolution": 224})["resolution"]
        224
    """

    __slots__ = ("_choices", "_hash")

    def __init__(self, choices: Mapping[str, Any]) -> None:
        self._choices = dict(choices)
        self._hash = hash(frozenset(self._choices.items()))

    def __getitem__(self, name: str) -> Any:
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Subnet):
            return self._choices == other._choices
        return NotImplemented

    def __reduce__(self) -> tuple[type[Subnet], tuple[dict[str, Any]]]:
        return Subnet, (self._choices,)  # the hash of a str differs from process to process

    def __repr__(self) -> str:
        return f"Subnet({', '.join(f'{name}={value}' for name, value in self._choices.items())})"
