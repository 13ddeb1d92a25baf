"""Results of an evaluation: tabled, drawn, written and read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pss_razor import compat
from pss_razor.core import (
    ConfigError,
    Criterion,
    EvaluatedSubnet,
    SearchSpace,
    atomic_write,
    best_of_pools,
    is_scalar,
    read_json_file,
)
from pss_razor.evaluation.checks import get_algorithm
from pss_razor.visualization import draw_accuracy_against_resource

RESULTS_FILE = "pool_results.json"
_FORMAT = 1
_IMAGENET_SIZE, _IMAGENET_CLASSES = 50_000, 1000


def format_table(subnets: Sequence[EvaluatedSubnet], estimators: Mapping[str, Any]) -> str:
    """A text table with a row for each subnet: its pool, resources, resolution and metrics."""
    first = subnets[0]
    metrics = [name for name, value in first.measured.items() if is_scalar(value)]
    has_resolution = "resolution" in first.subnet
    header = ["pool", *(estimators[name].unit for name in first.resources), *(["resolution"] if has_resolution else [])]
    rows = [[*header, *(name.removeprefix("accuracy/") for name in metrics)]]
    for own in subnets:
        cells = [own.name if own.pool is None else f"{own.metric} {own.target}"]
        cells += [f"{own.resources[key]:.3f}" for key in first.resources]
        cells += [str(own.subnet["resolution"])] if has_resolution else []
        rows.append(cells + [f"{own.measured[key]:.2f}" for key in metrics])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def write_results(loop: Any, subnets: Sequence[EvaluatedSubnet], path: Path) -> list[Path]:
    """Write all subnets as JSON to ``path`` and a picture for each constraint beside it; returns the files.

    Args:
        loop: The :class:`PoolTestLoop` that evaluated them.
        subnets: Evaluated.
        path: The file; its folder is made.
    """
    runner = loop.runner
    algorithm = get_algorithm(runner)
    space = algorithm.space
    measured_on = describe_images(loop.dataloader.dataset)
    held_out = loop.selection_dataloader is not None
    document = {
        "format": _FORMAT,
        "model": type(algorithm.architecture.backbone).__name__,
        "checkpoint": str(compat.checkpoint_of(runner)),
        "dataset_size": len(loop.dataloader.dataset),
        "measured_on": measured_on,
        "selected_on": describe_images(loop.selection_dataloader.dataset) if held_out else measured_on,
        "protocol": "selected on held-out images" if held_out else "the paper's: selected on the images measured on",
        "decided_by": dataclasses.asdict(loop.criterion),
        "dataset": type(loop.dataloader.dataset).__name__,
        "num_classes": getattr(algorithm.architecture.head, "num_classes", None),
        "units": {metric: estimator.unit for metric, estimator in algorithm.estimators.items()},
        "training": loop.training_cost,
        "subnets": [_to_json(space, own) for own in subnets],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(document, indent=1).encode())
    written = [path]
    best = best_of_pools(subnets, loop.criterion)
    for constraint in algorithm.constraints:
        metric = constraint.metric
        picture = path.parent / f"accuracy_{metric}.png"
        image = draw_accuracy_against_resource(
            subnets, best, metric, algorithm.estimators[metric].unit, loop.criterion.metric
        )
        atomic_write(picture, image)
        written.append(picture)
    return written


def describe_images(dataset: Any) -> str:
    """Which images a dataset has: its type, what its config says of the part, and how many."""
    parts = [
        f"{key}={value!r}"
        for key in (
            "split",
            "span",
            "fold",
            "num_splits",
            "test_mode",
            "data_root",
            "data_prefix",
            "ann_file",
            "_indices",
        )
        if (value := _setting(dataset, key)) not in (None, "", {})
    ]
    inner = getattr(dataset, "dataset", None)  # of a wrapper, such as mmcls.KFoldDataset
    parts += [describe_images(inner)] if inner is not None else []
    return f"{type(dataset).__name__}({', '.join(parts)}), {len(dataset)} images"


def _setting(dataset: Any, key: str) -> Any:
    value = getattr(dataset, "__dict__", {}).get(key)  # a list has none
    return value.get("img_path", value) if isinstance(value, dict) else value


def read_document(path: Path) -> dict[str, Any]:
    """Read the file of :func:`write_results`, whatever search space it is of.

    Returns:
        The document, its ``subnets`` as :class:`EvaluatedSubnet`.

    Raises:
        ConfigError: The file is missing, of another kind, or damaged.
    """
    document = _read_json(path)
    return {**document, "subnets": _evaluated(path, document)}


def read_results(path: Path, space: SearchSpace) -> list[EvaluatedSubnet]:
    """Read the subnets of :func:`write_results`, of a search space.

    Raises:
        ConfigError: The file is missing, of another kind, damaged, or of another search space.
    """
    document = _read_json(path)
    evaluated = _evaluated(path, document)
    try:
        subnets = [space.from_record(record) for record in document["subnets"]]
    except ConfigError as error:
        raise ConfigError(f"results file {path} is of another search space: {error}") from error
    return [dataclasses.replace(own, subnet=subnet) for own, subnet in zip(evaluated, subnets, strict=True)]


def _read_json(path: Path) -> dict[str, Any]:
    document = read_json_file(path, "results file", "pss-test CONFIG CHECKPOINT writes one")
    subnets = document.get("subnets") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    if not isinstance(subnets, list):
        raise ConfigError(f"{path} is not a results file of pss-test (format {_FORMAT})")
    return document


def _evaluated(path: Path, document: Mapping[str, Any]) -> list[EvaluatedSubnet]:
    try:
        return [EvaluatedSubnet.from_record(record) for record in document["subnets"]]
    except ConfigError as error:
        raise ConfigError(f"results file {path} is damaged: {error}") from error


def read_criterion(document: Mapping[str, Any]) -> Criterion:
    """The criterion of the evaluation that a results file is from; version 0.1 took the first metric.

    Raises:
        ConfigError: The file has no evaluated subnets, or no valid criterion.
    """
    try:
        subnets = document["subnets"]
        return Criterion(**document.get("decided_by", {})).resolve(subnets[0].measured)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise ConfigError(f"it has no evaluated subnets, or says not what decides: {error!r}") from error


def describe_other_data(document: Mapping[str, Any]) -> str | None:
    """What a results file was measured on, in words; None if that is ImageNet's validation set, by size and classes.

    Files of version 0.1 have the size alone.
    """
    size, classes = document["dataset_size"], document.get("num_classes")
    if size == _IMAGENET_SIZE and classes in (None, _IMAGENET_CLASSES):
        return None
    words = [document.get("dataset", "other data"), *([f"{classes} classes"] if classes else []), f"{size} images"]
    return ", ".join(words)


def _to_json(space: SearchSpace, own: EvaluatedSubnet) -> dict[str, Any]:
    record = own.to_record(space)
    for key in ("metrics", "selection_metrics"):
        if key in record:
            record[key] = {name: _finite(value) for name, value in record[key].items()}
    return record


def _finite(value: Any) -> Any:
    """A metric's value with None in place of numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
