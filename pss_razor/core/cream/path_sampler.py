"""Which path is trained next (Cream)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pss_razor.core.cream.path_board import PathBoard
from pss_razor.core.errors import ConfigError
from pss_razor.core.space.search_space import Dimension, SearchSpace
from pss_razor.core.space.subnet import Subnet

PATH_SAMPLINGS = ("even", "pre_prob", "teacher")


class PathSampler:
    """Draws paths, the op of each block independently (Cream, section 3).

    Args:
        space: The search space.
        sampling: ``"even"``, all ops equally likely; ``"pre_prob"``, with fixed probabilities; ``"teacher"``, in
            proportion to how often the board's paths have each op, and evenly while the board is empty.
        op_probabilities: Probabilities for ``"pre_prob"``, in the order of the ops.
        seed: Seed of the draws; the same on all ranks.

    Raises:
        ConfigError: ``sampling`` is unknown, or the probabilities do not fit the ops.
    """

    def __init__(
        self, space: SearchSpace, sampling: str = "even", op_probabilities: Sequence[float] = (), seed: int = 0
    ) -> None:
        if sampling not in PATH_SAMPLINGS:
            raise ConfigError(f"sampling = {sampling!r} is not known; choose from {list(PATH_SAMPLINGS)}")
        self.space = space
        self.sampling = sampling
        self.op_probabilities = np.asarray(op_probabilities, dtype=np.float64)
        self.generator = np.random.default_rng(seed)
        if sampling == "pre_prob":
            counts = {len(d.values) for d in space.dimensions} - {1}
            possible = np.all(self.op_probabilities >= 0) and abs(self.op_probabilities.sum() - 1) <= 1e-9
            if counts - {len(self.op_probabilities)} or not possible:
                raise ConfigError(
                    f"op_probabilities = {tuple(op_probabilities)} must be probabilities with sum 1, one for each of "
                    f"{max(counts, default=1)} ops"
                )

    def draw(self, board: PathBoard) -> Subnet:
        """Draw the path of the next iteration."""
        frequencies = Counter(op for entry in board for op in entry.path.values())
        indices = [self.generator.choice(len(d.values), p=self._weights(d, frequencies)) for d in self.space.dimensions]
        return self.space.decode(np.array(indices))

    def _weights(self, dimension: Dimension, frequencies: Counter[Any]) -> np.ndarray:
        """Probability of each op of a block."""
        count = len(dimension.values)
        if self.sampling == "pre_prob" and count > 1:
            return self.op_probabilities
        on_board = np.array([frequencies[op] for op in dimension.values], dtype=np.float64)
        if self.sampling == "teacher" and on_board.any():
            return on_board / on_board.sum()
        return np.full(count, 1 / count)
