"""MMRazor's predictor of a subnet's score, over our search space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pss_razor import compat
from pss_razor.core import ConfigError, SearchSpace, check_extra, check_packages
from pss_razor.evaluation.random_state import isolated_random_state
from pss_razor.registry import TASK_UTILS

from mmengine.dist import broadcast_object_list

_RBF_PACKAGE = "pySOT==0.2.3 (a later one has another interface)"


class SubnetPredictor:
    """``MetricPredictor`` of MMRazor that takes subnets as value indices.

    The same samples give the same scores on every rank and in a resumed search: every fit builds a new handler with
    seeded random numbers. MMRazor's own encoding of subnets uses a name that numpy has removed.

    Args:
        config: Config of a ``MetricPredictor``: ``handler_cfg``, ``encoding_type`` and ``train_samples``, the number of
            subnets to fit on, or a ``search_epoch_N.json`` of a search that has them.
        space: The search space.
        seed: Seed of the random numbers that a handler draws.

    Raises:
        MissingPackageError: The handler's package is not installed.
        ConfigError: The config cannot work.
    """

    def __init__(self, config: Mapping[str, Any], space: SearchSpace, seed: int) -> None:
        self.config = {"train_samples": 2, **config}
        self.space = space
        self.seed = seed
        if self.config.pop("handler_ckpt", None) is not None:
            raise ConfigError(
                "predictor_cfg.handler_ckpt is a pickle, which can run code; set train_samples to a "
                "search_epoch_N.json of the search that fitted it"
            )
        self.train_samples = self.config["train_samples"]
        if not isinstance(self.train_samples, str) and self.train_samples < 2:
            raise ConfigError(f"predictor_cfg.train_samples = {self.train_samples} must be at least 2, or a file")
        handler = self.config.get("handler_cfg", {}).get("type", "")
        if handler.endswith("GaussProcessHandler"):
            check_extra("predictor", "pydacefit", what=f"predictor_cfg: {handler}")
        if handler.endswith("RBFHandler"):
            check_packages(_RBF_PACKAGE, "pySOT", what=f"predictor_cfg: {handler}")
        self._build()  # says what is wrong before any subnet is evaluated

    def fit(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Fit on evaluated subnets.

        Args:
            indices: Value indices, int64 (N, D).
            scores: float (N,).

        Raises:
            ConfigError: The handler cannot be fitted to so few.
        """
        with isolated_random_state(self.seed):
            self._predictor = self._build()
            handler, samples = self._predictor.handler, self._encode(indices)
            try:
                handler.fit(samples, np.asarray(scores, dtype=np.float64))
                if not np.isfinite(handler.predict(samples)).all():
                    raise ValueError("what it predicts is not finite")
            except Exception as error:  # handlers raise what they like
                raise ConfigError(
                    f"predictor_cfg: {type(handler).__name__} cannot be fitted to {len(indices)} subnets ({error}); "
                    "enlarge train_samples, or choose another handler"
                ) from error

    def predict(self, indices: np.ndarray) -> np.ndarray:
        """Scores of subnets, value indices (N, D): float64 (N,), those of the first rank everywhere."""
        scores: list[np.ndarray | None] = [None]
        if len(indices):
            scores = [np.asarray(self._predictor.handler.predict(self._encode(indices)), dtype=np.float64).ravel()]
        broadcast_object_list(scores)
        return np.zeros(0) if scores[0] is None else scores[0]

    def _build(self) -> Any:
        predictor = TASK_UTILS.build({**self.config, "search_groups": {}})
        compat.mend_predictor_handler(predictor.handler)
        return predictor

    def _encode(self, indices: np.ndarray) -> np.ndarray:
        if self._predictor.encoding_type == "normal":
            return indices.astype(np.float64)
        columns = [np.eye(size)[column] for size, column in zip(self.space.shape, indices.T, strict=True)]
        return np.concatenate(columns, axis=1)
