"""The board of prioritized paths, which teach the others (Cream)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from pss_razor.core.errors import CheckpointError, ConfigError
from pss_razor.core.space.search_space import SearchSpace
from pss_razor.core.space.subnet import Subnet


@dataclass(frozen=True)
class BoardEntry:
    """What the board keeps of a path.

    Args:
        accuracy: Top-1 on the batch that it was trained on, in percent.
        flops: FLOPs in millions.
        path: The op of each block.
        images: A few images of that batch.
        targets: Class probabilities of its teacher on these images; its own where it had no teacher.
    """

    accuracy: float
    flops: float
    path: Subnet
    images: Any
    targets: Any


class PathBoard(Sequence[BoardEntry]):
    """At most ``capacity`` paths, the most accurate first (Cream, section 3.2).

    Args:
        capacity: Most entries.
        margin: Percentage points by which a path that is not cheaper has to beat the last entry.
    """

    def __init__(self, capacity: int = 10, margin: float = 5.0) -> None:
        if capacity < 1:
            raise ConfigError(f"pool_size = {capacity} must be at least 1")
        self.capacity = capacity
        self.margin = margin
        self._entries: list[BoardEntry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[BoardEntry]:
        return iter(self._entries)

    @overload
    def __getitem__(self, index: int) -> BoardEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[BoardEntry]: ...
    def __getitem__(self, index: int | slice) -> BoardEntry | list[BoardEntry]:
        return self._entries[index]

    def accepts(self, accuracy: float, flops: float) -> bool:
        """Whether a path enters: there is room, or the last is worse by the margin, or worse with more FLOPs."""
        if len(self) < self.capacity:
            return True
        last = self._entries[-1]
        return accuracy > last.accuracy + self.margin or (accuracy > last.accuracy and flops < last.flops)

    def add(self, entry: BoardEntry) -> None:
        """Enter a path that :meth:`accepts` allows; a full board drops its last. Of equals, older ones come first."""
        assert self.accepts(entry.accuracy, entry.flops)
        self._entries = sorted([*self._entries[: self.capacity - 1], entry], key=lambda e: -e.accuracy)

    def best_within(self, mflops_range: Sequence[float]) -> BoardEntry:
        """The most accurate entry with MFLOPs in an interval; where there is none, the one that is nearest to it."""
        least, most = mflops_range
        return min(self, key=lambda entry: max(least - entry.flops, entry.flops - most, 0.0))

    def state_dict(self, space: SearchSpace) -> list[dict[str, Any]]:
        """The entries, best first; plain values but for images and targets."""
        return [
            {
                "accuracy": entry.accuracy,
                "flops": entry.flops,
                **space.to_record(entry.path),
                "images": entry.images,
                "targets": entry.targets,
            }
            for entry in self
        ]

    def load_state_dict(self, space: SearchSpace, state: Sequence[Mapping[str, Any]]) -> None:
        """Load what :meth:`state_dict` returned, the best ``capacity`` entries at most.

        Raises:
            CheckpointError: The entries are of another search space.
        """
        try:
            self._entries = [
                BoardEntry(
                    float(record["accuracy"]),
                    float(record["flops"]),
                    space.from_record(record),
                    record["images"],
                    record["targets"],
                )
                for record in state[: self.capacity]
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the board of the checkpoint is not of this search space: {error}; use the config that it was "
                "trained with"
            ) from error
