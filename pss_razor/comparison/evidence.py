"""Raw results of a comparison in one compact file, from which its statistics can be computed again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pss_razor.core import ConfigError, Criterion, EvaluatedSubnet, best_of_pools, is_number, read_json_file
from pss_razor.evaluation.results import read_criterion, read_document

MEMBER_COLUMNS = ("resource", "accuracy", "selection_accuracy", "score")
_FORMAT = 1
_LARGEST = 1e30


@dataclass(frozen=True)
class Pick:
    """The subnet that a method chose for a target; or the largest or the smallest.

    Args:
        name: Of its pool, such as ``"flops_150"``; ``"largest"`` or ``"smallest"``.
        metric: Of its pool; None for the largest and the smallest.
        target: Of its pool, in the metric's unit; None for the largest and the smallest.
        resources: Metric -> cost, in the unit of its estimator.
        accuracy: On the images measured on.
        selection_accuracy: On the images that it was chosen by; None where they are those measured on.
        score: In its pool; None without pools.
    """

    name: str
    metric: str | None
    target: float | None
    resources: Mapping[str, float]
    accuracy: float
    selection_accuracy: float | None = None
    score: float | None = None

    @property
    def pool(self) -> tuple[str, float] | None:
        """Key of its pool; None for the largest and the smallest."""
        return None if self.metric is None or self.target is None else (self.metric, self.target)


@dataclass(frozen=True)
class Run:
    """One method with one seed.

    Args:
        method: The method.
        seed: The seed.
        picks: The largest, the smallest, and the chosen subnet of each target.
        members: Name of a pool -> :data:`MEMBER_COLUMNS` of all its subnets that were measured; None in a column is a
            value that is not known.
        training: ``steps``, ``images`` seen and ``gmacs`` (1e9 multiply-accumulates) of the training, where known.
    """

    method: str
    seed: int
    picks: tuple[Pick, ...]
    members: Mapping[str, Mapping[str, list[float | None]]]
    training: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Evidence:
    """What was measured of several methods on the same images.

    Args:
        accuracy: Name of the deciding metric.
        rule: ``"greater"`` if more of it is better, else ``"less"``.
        images: How many images it was measured on.
        units: Metric -> unit.
        selected_on: Images that subnets were chosen by, in words.
        measured_on: Images measured on, in words.
        runs: Methods and seeds.
        alone: Name of a pool -> seed -> accuracy of its subnet trained alone.
        about: Whatever else a reader needs: commands, device, date.
    """

    accuracy: str
    rule: str
    images: int
    units: Mapping[str, str]
    selected_on: str | None
    measured_on: str | None
    runs: tuple[Run, ...]
    alone: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the runs."""
        return list(dict.fromkeys(run.method for run in self.runs))

    def of(self, method: str) -> dict[int, dict[str, Pick]]:
        """Seed -> name -> pick, of a method."""
        return {run.seed: {pick.name: pick for pick in run.picks} for run in self.runs if run.method == method}

    def to_json(self) -> bytes:
        """The content of an evidence file: a line for each run."""
        record = dataclasses.asdict(self)
        lines = [f" {json.dumps(run)}" for run in record.pop("runs")]
        head = json.dumps({"format": _FORMAT, **record}, indent=1)
        return (head.removesuffix("\n}") + ',\n "runs": [\n' + ",\n".join(lines) + "\n ]\n}\n").encode()


def collect_evidence(
    runs: Mapping[str, Mapping[int, Path]],
    alone: Mapping[str, Mapping[int, float]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Evidence:
    """Gather the results files of several methods.

    Args:
        runs: Method -> seed -> results file of ``pss-test``.
        alone: See :class:`Evidence`.
        about: See :class:`Evidence`.

    Raises:
        ConfigError: A results file is missing or is none, or files are of different metrics or numbers of images.
    """
    files = [(method, seed, path) for method, by_seed in runs.items() for seed, path in by_seed.items()]
    documents = [read_document(path) for _, _, path in files]
    first, criterion = documents[0], read_criterion(documents[0])
    for (_, _, path), document in zip(files, documents, strict=True):
        for what, wanted, found in (
            ("deciding metrics", criterion, read_criterion(document)),
            ("numbers of images", first.get("dataset_size"), document.get("dataset_size")),
        ):
            if wanted != found:
                raise ConfigError(
                    f"{files[0][2]} and {path} cannot be compared: their {what} are {wanted} and {found}; test both "
                    "with the same test_evaluator, test_cfg and test_dataloader"
                )
    if type(first.get("dataset_size")) is not int or first["dataset_size"] < 1:
        raise ConfigError(f"results file {files[0][2]} is damaged: its dataset_size is {first.get('dataset_size')!r}")
    return Evidence(
        accuracy=criterion.name,
        rule=criterion.rule,
        images=first["dataset_size"],
        units=first["units"],
        selected_on=first.get("selected_on"),
        measured_on=first.get("measured_on"),
        runs=tuple(
            _run(method, seed, document, criterion)
            for (method, seed, _), document in zip(files, documents, strict=True)
        ),
        alone=alone or {},
        about=about or {},
    )


def _run(method: str, seed: int, document: Mapping[str, Any], criterion: Criterion) -> Run:
    def value(metrics: Mapping[str, Any] | None) -> float | None:
        return None if metrics is None else metrics.get(criterion.name)

    def pick(own: EvaluatedSubnet) -> Pick:
        if not is_number(own.measured.get(criterion.name)):
            raise ConfigError(
                f"{criterion.name} of {own.name} of {method}, seed {seed}, is "
                f"{own.measured.get(criterion.name)!r:.50}: it cannot be compared"
            )
        return Pick(
            own.name,
            own.metric,
            own.target,
            dict(own.resources),
            own.measured[criterion.name],
            value(own.selection_metrics),
            own.score,
        )

    members: dict[str, dict[str, list[float | None]]] = {}
    for own in document["subnets"]:
        if own.metric is not None:
            columns = members.setdefault(own.name, {})
            numbers = (own.resources[own.metric], value(own.measured), value(own.selection_metrics), own.score)
            for key, number in zip(MEMBER_COLUMNS, numbers, strict=True):
                columns.setdefault(key, []).append(number)
    picks = tuple(pick(own) for own in best_of_pools(document["subnets"], criterion))
    training = document.get("training")
    if isinstance(training, Mapping):
        training = {name: number for name, number in training.items() if is_number(number)}
    return Run(method, seed, picks, members, training or None)


def read_evidence(path: Path) -> Evidence:
    """Read a file of :meth:`Evidence.to_json`.

    Raises:
        ConfigError: The file is missing, of another kind, or damaged.
    """
    record = read_json_file(path, "evidence file", "tools/evidence_report.py collect writes one")
    if not isinstance(record, dict) or record.get("format") != _FORMAT or "runs" not in record:
        raise ConfigError(f"{path} is not a file of tools/evidence_report.py collect (format {_FORMAT})")
    try:
        del record["format"]
        runs = tuple(
            Run(**{**run, "picks": tuple(Pick(**pick) for pick in run["picks"])}) for run in record.pop("runs")
        )
        alone = {name: {int(s): float(a) for s, a in own.items()} for name, own in record.pop("alone").items()}
        evidence = Evidence(**record, runs=runs, alone=alone)
        _check(evidence)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"evidence file {path} is damaged: {error!r:.300}") from error
    return evidence


def _check(evidence: Evidence) -> None:
    """Check what statistics are computed from.

    Raises:
        ValueError: A value is of another kind.
        TypeError: Likewise.
        AttributeError: Likewise.
        KeyError: A cost is missing.
    """
    if not evidence.runs or type(evidence.images) is not int or evidence.images < 1:
        raise ValueError(f"{len(evidence.runs)} runs on {evidence.images!r:.50} images")
    Criterion(evidence.accuracy, evidence.rule)
    _check_texts(evidence.accuracy, *evidence.units, *evidence.units.values(), *evidence.about.keys())
    _check_numbers("trained alone", *(value for own in evidence.alone.values() for value in own.values()))
    if not all(evidence.alone.values()):
        raise ValueError("a subnet trained alone has no accuracy")
    for run in evidence.runs:
        _check_texts(run.method)
        if type(run.seed) is not int or sum((r.method, r.seed) == (run.method, run.seed) for r in evidence.runs) > 1:
            raise ValueError(f"seed {run.seed!r:.50} of {run.method:.50} is no integer, or there twice")
        for pick in run.picks:
            _check_texts(pick.name)
            _check_numbers(f"accuracy of {pick.name:.50}", pick.accuracy)
            if pick.metric is not None:
                _check_texts(evidence.units[pick.metric])
                cost = pick.resources[pick.metric]
                _check_numbers(f"target and resource of {pick.name:.50}", pick.target, cost)
                if cost <= 0:
                    raise ValueError(f"resource {cost} of {pick.name:.50}")
        for name, columns in run.members.items():
            if columns.keys() != set(MEMBER_COLUMNS) or len({len(column) for column in columns.values()}) != 1:
                raise ValueError(f"members of {name:.50}: wanted are columns {MEMBER_COLUMNS} of one length")
            known = (value for column in columns.values() for value in column if value is not None)
            _check_numbers(f"members of {name:.50}", *known)
        for name, value in (run.training or {}).items():
            _check_numbers(f"training, {name:.50}", value)


def _check_texts(*values: Any) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{value!r:.50} is no text")


def _check_numbers(what: str, *values: Any) -> None:
    """Check that values are numbers, and none so large that sums of them are infinite."""
    for value in values:
        if not is_number(value) or abs(value) > _LARGEST:
            raise ValueError(f"{what}: {value!r:.50}")
