"""MMRazor's evolution search, with candidates that are in their resource ranges by construction."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader
from tqdm import tqdm

from pss_razor import compat
from pss_razor.checkpoints.checkpoint import check_state_dict, read_checkpoint
from pss_razor.core import CheckpointError, ConfigError, PSSError, RangeSampler, Subnet, atomic_write, parse_json
from pss_razor.engine.loops.subnet_predictor import SubnetPredictor
from pss_razor.evaluation.bn_calibration import calibrate_bn, isolated_bn_statistics
from pss_razor.evaluation.calibration_images import load_calibration_batches
from pss_razor.models import SubnetMutator
from pss_razor.registry import LOOPS

from mmengine.dist import broadcast_object_list, is_main_process
from mmrazor.engine import EvolutionSearchLoop
from mmrazor.structures import Candidates, convert_fix_subnet, export_fix_subnet

# Attempts for each wanted child; checking one costs less than a microsecond.
_ATTEMPTS = 100
# State of a search in its work directory; the group is the epoch.
_STATE_FILE = re.compile(r"search_epoch_(\d+)\.json")


@LOOPS.register_module()
class ConstrainedSearchLoop(EvolutionSearchLoop):
    """MMRazor's ``EvolutionSearchLoop`` (SPOS, arXiv 1904.00420, section 3.4) over our search space and estimators.

    Epochs, evaluation, selection and their parameters are MMRazor's. New here: candidates are drawn within the ranges,
    where MMRazor draws any subnet, exports it and measures it; no candidate comes twice; several metrics can have
    ranges; the supernet's BN statistics stay unchanged; a resumed search equals one that never stopped.

    Writes ``search_epoch_N.json`` for :attr:`resume_from` and, at the end, ``best_fix_subnet.yaml``, a ``fix_subnet``
    of MMRazor's ``sub_model``, and ``subnet_best.pth``, the best subnet's weights in the supernet.

    Args:
        *args: See ``EvolutionSearchLoop``.
        estimator_cfg: Config of an :class:`OneShotResourceEstimator`, or of another estimator with ``build_costs``.
        constraints_range: Metric -> (least, most), or most.
        resume_from: A ``search_epoch_N.json``; ``"auto"`` is the newest of the work directory, if there is one.
        predictor_cfg: Config of a ``MetricPredictor`` of MMRazor, see :class:`SubnetPredictor`. It is fitted to
            evaluated samples and scores the candidates, of which only the ``top_k`` best are evaluated, at the end.
        seed: Seed of the draws; None takes the runner's.
        **kwargs: See ``EvolutionSearchLoop``.

    Example:
        ``train_cfg=dict(type='ConstrainedSearchLoop', dataloader=…, evaluator=…, max_epochs=20, estimator_cfg=dict(
        type='OneShotResourceEstimator', input_size=224), constraints_range=dict(flops=(0, 330)))``

    Raises:
        ConfigError: The mutator is no :class:`SubnetMutator`, the estimator has no ``build_costs``, a metric has a
            range but is not measured, or mutation and crossover make more than ``num_candidates``.
        UnreachableTargetError: No subnet is in a range.
        CheckpointError: ``load_from`` or ``resume_from`` is of another search.
    """

    top_k_candidates: Candidates

    def __init__(
        self,
        *args: Any,
        estimator_cfg: Mapping[str, Any],
        constraints_range: Mapping[str, Any],
        resume_from: str | None = None,
        predictor_cfg: Mapping[str, Any] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, estimator_cfg=dict(estimator_cfg), resume_from=resume_from, **kwargs)
        self.constraints_range = {
            metric: tuple(value) if isinstance(value, (list, tuple)) else (0.0, value)
            for metric, value in constraints_range.items()
        }
        if self.num_mutation + self.num_crossover > self.num_candidates:
            raise ConfigError(
                f"num_mutation + num_crossover = {self.num_mutation + self.num_crossover} is more than "
                f"num_candidates = {self.num_candidates}"
            )
        mutator = self.model.mutator
        if not isinstance(mutator, SubnetMutator):
            raise ConfigError(f"model.mutator is a {type(mutator).__name__}; the search needs a SubnetMutator")
        self.space = mutator.space
        if not hasattr(self.estimator, "build_costs"):
            raise ConfigError(
                f"train_cfg.estimator_cfg is a {type(self.estimator).__name__}, which counts one subnet at a time; set "
                "dict(type='OneShotResourceEstimator', input_size=…)"
            )
        costs = self.estimator.build_costs(self.model.architecture, mutator)
        self.sampler = RangeSampler(costs, self.constraints_range)
        # Seed and scores are equal on all ranks, so that all ranks search alike.
        seed = self.runner.seed if seed is None else seed
        self.generator = np.random.default_rng(seed)
        self.predictor = None if predictor_cfg is None else SubnetPredictor(predictor_cfg, self.space, seed)
        self._samples = Candidates()
        self._known: set[tuple[int, ...]] = set()
        self._calibration_batches: list[Any] | None = None
        if checkpoint := compat.checkpoint_of(self.runner):
            check_state_dict(self.model, read_checkpoint(checkpoint, needs_pools=False)["state_dict"])
        else:
            self.runner.logger.warning("load_from is not set: the candidates are those of an untrained supernet")

    def run(self) -> None:
        """Search; with a predictor, evaluate its samples first and its best candidates at the end."""
        self.runner.call_hook("before_train")
        if self.resume_from:
            self._resume()
        if self.predictor is not None:
            self._fit_predictor(self.predictor)
        while self.epoch < self.max_epochs:
            self.run_epoch()
            self._save_searcher_ckpt()
        if self.predictor is not None:
            self._evaluate_best()
        self._save_best_fix_subnet()
        self.runner.call_hook("after_train")

    def sample_candidates(self) -> None:
        """Fill up the candidates with draws from the space conditional on the ranges."""
        missing = self.num_candidates - len(self.candidates)
        self.candidates.extend(self._to_candidates(self.sampler.draw_distinct(missing, self.generator, self._known)))

    def update_candidates_scores(self) -> None:
        """Evaluate the candidates, or predict their scores."""
        if not self.candidates:
            self.runner.logger.warning("every subnet in the ranges has been evaluated")
        if self.predictor is None:
            self._evaluate(self.candidates, f"search epoch {self.epoch + 1}/{self.max_epochs}")
            return
        scores = self.predictor.predict(self.space.encode(_subnets(self.candidates)))
        for index, score in enumerate(scores.tolist()):
            self.candidates.set_score(index, score)

    def gen_mutation_candidates(self) -> Candidates:
        """Children of the best, with some choices drawn anew."""
        return self._children(self.num_mutation, self.mutate_prob, self._draw_blindly)

    def gen_crossover_candidates(self) -> Candidates:
        """Children of two of the best."""
        return self._children(self.num_crossover, self.crossover_prob, self._draw_parents)

    def calibrate_bn_statistics(self, dataloader: DataLoader, calibrate_sample_num: int = 2000) -> None:
        """Average BN statistics over training images; ``dataloader``, here the validation images, is not used."""
        if self._calibration_batches is None:
            loader = self.runner.build_dataloader(self.runner.cfg.train_dataloader, seed=self.runner.seed)
            count = math.ceil(calibrate_sample_num / loader.batch_size)
            self._calibration_batches = load_calibration_batches(loader, count)

        def forward(batch: Any) -> Any:
            return self.model(self.model.data_preprocessor(batch, False)["inputs"], mode="tensor")

        calibrate_bn(self.model, self._calibration_batches, forward)

    def _val_candidate(self, use_predictor: bool = False) -> dict[str, float]:
        """Metrics of the active subnet; its BN statistics are its own."""
        with isolated_bn_statistics(self.model):
            return super()._val_candidate(use_predictor)

    def _evaluate(self, candidates: Candidates, title: str) -> None:
        """Score candidates by evaluation."""
        progress = tqdm(_subnets(candidates), title, unit="subnet", disable=not is_main_process(), leave=False)
        for index, choices in enumerate(progress):
            self.model.mutator.set_choices(choices)
            metrics = self._val_candidate()
            if self.score_key not in metrics:
                raise ConfigError(f"score_key = {self.score_key!r} is no metric; the evaluator has {sorted(metrics)}")
            candidates.set_score(index, float(metrics[self.score_key]))
            record = next(iter(candidates.data[index].values()))
            measured = ", ".join(f"{metric} {record[metric]:.6g}" for metric in (*self.sampler.costs, "score"))
            self.runner.logger.info(f"{title}, candidate {index + 1} of {len(candidates)}: {measured}")

    def _fit_predictor(self, predictor: SubnetPredictor) -> None:
        """Fit to samples: those of the resumed state, those of a file, or new ones that are evaluated now."""
        if not self._samples:
            if isinstance(predictor.train_samples, str):
                self._samples = self._read_samples(Path(predictor.train_samples))
            else:
                # Not among the known: they may be candidates too.
                drawn = self.sampler.draw_distinct(predictor.train_samples, self.generator)
                self._samples = self._to_candidates(drawn)
                self._evaluate(self._samples, "samples of the predictor")
            self._save_searcher_ckpt()
        scores = [next(iter(item.values()))["score"] for item in self._samples.data]
        predictor.fit(self.space.encode(_subnets(self._samples)), np.array(scores))
        self.runner.logger.info(f"the predictor is fitted to {len(self._samples)} evaluated subnets")

    def _evaluate_best(self) -> None:
        """Evaluate the best by prediction, and rank them with the samples by evaluated scores."""
        finalists = self._from_records(self._to_records(self.top_k_candidates))
        predicted = [next(iter(item.values()))["score"] for item in finalists.data]
        self._evaluate(finalists, "the best by prediction")
        errors = np.subtract(predicted, [next(iter(item.values()))["score"] for item in finalists.data])
        self.runner.logger.info(
            f"{self.score_key} of the {len(errors)} best by prediction is off by {np.abs(errors).mean():.3g} on average"
        )
        finalists.extend(self._samples)
        finalists.sort_by(key_indicator="score", reverse=True)
        self.top_k_candidates = Candidates(finalists.data[: self.top_k])

    def _check_constraints(self, random_subnet: Mapping[str, Any]) -> tuple[bool, dict[str, float]]:
        """Whether a subnet is in all ranges, and its resources."""
        indices = self.space.encode([random_subnet])
        resources = {metric: float(values[0]) for metric, values in self.sampler.resources(indices).items()}
        return bool(self.sampler.accepts(indices)[0]), resources

    def _children(self, count: int, probability: float, draw_others: Any) -> Candidates:
        """Up to ``count`` new subnets in the ranges; a bounded number of attempts may leave fewer.

        Args:
            count: How many.
            probability: Of taking a choice from the other subnet instead of from the parent.
            draw_others: Count -> the other subnets, value indices (count, D).
        """
        attempts = _ATTEMPTS * count
        parents, others = self._draw_parents(attempts), draw_others(attempts)
        children = np.where(self.generator.random(parents.shape) < probability, others, parents)
        accepted = map(tuple, children[self.sampler.accepts(children)].tolist())
        new = list(itertools.islice((row for row in dict.fromkeys(accepted) if row not in self._known), count))
        self._known.update(new)
        return self._to_candidates(np.array(new, dtype=np.int64).reshape(len(new), len(self.space)))

    def _draw_parents(self, count: int) -> np.ndarray:
        best = self.space.encode(self.top_k_candidates.subnets)
        return best[self.generator.integers(len(best), size=count)]

    def _draw_blindly(self, count: int) -> np.ndarray:
        return self.space.draw(count, self.generator)

    def _to_candidates(self, indices: np.ndarray) -> Candidates:
        candidates = Candidates([dict(self.space.decode(row)) for row in indices])
        resources = self.sampler.resources(indices)
        candidates.update_resources(
            [{metric: float(values[row]) for metric, values in resources.items()} for row in range(len(indices))]
        )
        return candidates

    def _save_searcher_ckpt(self) -> None:
        """Write the state of the search, as JSON."""
        if not is_main_process():
            return
        state = {
            "epoch": self.epoch,
            "constraints_range": {metric: list(bounds) for metric, bounds in self.constraints_range.items()},
            "predictor": self._predictor_config(),
            "samples": self._to_records(self._samples),
            "candidates": self._to_records(self.candidates),
            "top_k_candidates": self._to_records(self.top_k_candidates),
            "known": sorted(self._known),
            "generator": self.generator.bit_generator.state,
        }
        work_dir = Path(self.runner.work_dir)
        atomic_write(work_dir / f"search_epoch_{self.epoch}.json", json.dumps(state).encode())
        if self.top_k_candidates:
            self.runner.logger.info(f"search epoch {self.epoch}: the best score is {self.top_k_candidates.scores[0]}")
        if self.max_keep_ckpts > 0:
            for _, path in _state_files(work_dir)[: -self.max_keep_ckpts]:
                path.unlink()

    def _resume(self) -> None:
        """Continue from a file of :meth:`_save_searcher_ckpt`, on every rank from the main one's."""
        state = [self._read_state() if is_main_process() else None]
        broadcast_object_list(state)
        if isinstance(state[0], PSSError):
            raise state[0]
        if state[0] is None:
            return
        compat.set_epoch(self, state[0]["epoch"])
        self._samples = self._from_records(state[0].get("samples", []))
        self.candidates = self._from_records(state[0]["candidates"])
        self.top_k_candidates = self._from_records(state[0]["top_k_candidates"])
        self._known = set(map(tuple, state[0]["known"]))
        self.generator.bit_generator.state = state[0]["generator"]
        self.runner.logger.info(f"the search continues after epoch {self.epoch} of {self.max_epochs}")

    def _read_state(self) -> dict[str, Any] | PSSError | None:
        """The state to continue from, None if there is none; an error for all ranks to raise."""
        path = Path(self.resume_from)
        if self.resume_from == "auto":
            files = _state_files(Path(self.runner.work_dir))
            if not files:
                return None
            path = files[-1][1]
        try:
            state = parse_json(path.read_bytes())
            wanted = {metric: list(bounds) for metric, bounds in self.constraints_range.items()}
            if state["constraints_range"] != wanted:
                raise CheckpointError(f"it is of the ranges {state['constraints_range']}, the config has {wanted}")
            if state.get("predictor") != self._predictor_config():
                raise CheckpointError(
                    f"it is of the predictor {state.get('predictor')}, the config has {self._predictor_config()}"
                )
            for records in (state["candidates"], state["top_k_candidates"], state.get("samples", [])):
                self._from_records(records)
            if not all(len(row) == len(self.space) for row in state["known"]) or "epoch" not in state:
                raise CheckpointError("it is of another search space")
            np.random.default_rng().bit_generator.state = state["generator"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            return CheckpointError(f"resume_from = {path} is no state of this search: {error}")
        return state

    def _predictor_config(self) -> Any:
        """The predictor's config without ``train_samples``, as plain JSON values."""
        if self.predictor is None:
            return None
        config = {key: value for key, value in self.predictor.config.items() if key != "train_samples"}
        return json.loads(json.dumps(config))

    def _read_samples(self, path: Path) -> Candidates:
        try:
            samples = self._from_records(json.loads(path.read_text())["samples"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"predictor_cfg.train_samples = {path} has no samples of this search space: {error}"
            ) from error
        if len(samples) < 2:
            raise CheckpointError(f"predictor_cfg.train_samples = {path} has {len(samples)} samples, too few")
        return samples

    def _to_records(self, candidates: Candidates) -> list[dict[str, Any]]:
        measured = [next(iter(item.values())) for item in candidates.data]
        return [{**self.space.to_record(s), "measured": m} for s, m in zip(_subnets(candidates), measured, strict=True)]

    def _from_records(self, records: list[dict[str, Any]]) -> Candidates:
        candidates = Candidates([dict(self.space.from_record(record)) for record in records])
        candidates.update_resources([record["measured"] for record in records])
        return candidates

    def _save_best_fix_subnet(self) -> None:
        """Write the best subnet as MMRazor's yaml, with names as in the architecture alone, and its weights."""
        if not is_main_process():
            return
        best = Subnet(self.top_k_candidates.subnets[0])
        record = next(iter(self.top_k_candidates.data[0].values()))
        measured = {metric: record[metric] for metric in (*self.sampler.costs, "score")}
        work_dir = Path(self.runner.work_dir)
        with self.model.mutator.active(best):
            fix_subnet, network = export_fix_subnet(self.model.architecture, slice_weight=True)
        text = yaml.safe_dump(convert_fix_subnet(fix_subnet), sort_keys=False)
        atomic_write(work_dir / "best_fix_subnet.yaml", text.encode())
        buffer = io.BytesIO()
        torch.save({"state_dict": network.state_dict(), "meta": {**self.space.to_record(best), **measured}}, buffer)
        atomic_write(work_dir / "subnet_best.pth", buffer.getvalue())
        self.runner.logger.info(
            f"the best subnet has {measured}: best_fix_subnet.yaml and subnet_best.pth in {work_dir}"
        )


def _subnets(candidates: Candidates) -> list[dict[str, Any]]:
    """The choices of each candidate; MMRazor's own refuses an empty list."""
    return candidates.subnets if candidates else []


def _state_files(work_dir: Path) -> list[tuple[int, Path]]:
    """The states of a search with their epochs, the newest last."""
    matches = [(_STATE_FILE.fullmatch(path.name), path) for path in work_dir.glob("search_epoch_*.json")]
    return sorted((int(match[1]), path) for match, path in matches if match)
