"""Results of an evaluation: chosen, tabled, drawn, written and read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pss_razor.core import ConfigError, SearchSpace, atomic_write, parse_json
from pss_razor.engine.checks import get_algorithm
from pss_razor.visualization import draw_accuracy_against_resource

RESULTS_FILE = "pool_results.json"
_FORMAT = 1


def primary_metric(record: Mapping[str, Any]) -> str:
    """The metric that decides which subnet of a pool is best: the first that the evaluator reports."""
    return next(iter(record["metrics"]))


def best_of_pools(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest and the smallest subnet, and of every pool the one of highest primary metric, in pool order."""
    best: dict[str, dict[str, Any]] = {}
    for record in records:
        name = record["name"]
        metric = primary_metric(record)
        if name not in best or record["metrics"][metric] > best[name]["metrics"][metric]:
            best[name] = record
    return list(best.values())


def format_table(records: Sequence[Mapping[str, Any]], estimators: Mapping[str, Any]) -> str:
    """A text table with a row for each record: its pool, resources, resolution and metrics."""
    resources = list(records[0]["resources"])
    metrics = list(records[0]["metrics"])
    has_resolution = "resolution" in records[0]["subnet"]
    header = ["pool", *(estimators[name].unit for name in resources), *(["resolution"] if has_resolution else [])]
    rows = [[*header, *(name.removeprefix("accuracy/") for name in metrics)]]
    for record in records:
        name = record["name"] if record["metric"] is None else f"{record['metric']} {record['target']}"
        cells = [name, *(f"{record['resources'][key]:.3f}" for key in resources)]
        cells += [str(record["subnet"]["resolution"])] if has_resolution else []
        rows.append(cells + [f"{record['metrics'][key]:.2f}" for key in metrics])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def write_results(runner: Any, records: Sequence[Mapping[str, Any]], path: Path) -> list[Path]:
    """Write all records as JSON to ``path`` and a picture for each constraint beside it; returns the files."""
    algorithm = get_algorithm(runner)
    space = algorithm.space
    document = {
        "format": _FORMAT,
        "model": type(algorithm.architecture.backbone).__name__,
        "checkpoint": str(runner._load_from),
        "dataset_size": len(runner.test_dataloader.dataset),
        "units": {metric: estimator.unit for metric, estimator in algorithm.estimators.items()},
        "subnets": [_to_json(space, record) for record in records],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(document, indent=1).encode())
    written = [path]
    for constraint in algorithm.constraints:
        metric = constraint.metric
        picture = path.parent / f"accuracy_{metric}.png"
        image = draw_accuracy_against_resource(
            records, metric, algorithm.estimators[metric].unit, primary_metric(records[0])
        )
        atomic_write(picture, image)
        written.append(picture)
    return written


def read_document(path: Path) -> dict[str, Any]:
    """Read the file of :func:`write_results` as it is, whatever search space it is of.

    Raises:
        ConfigError: The file is missing or of another kind.
    """
    try:
        document = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"results file {path} does not exist; tools/test.py CONFIG CHECKPOINT writes one") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"results file {path} is not JSON: {error}") from error
    subnets = document.get("subnets") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    if not isinstance(subnets, list) or not all(isinstance(record, dict) for record in subnets):
        raise ConfigError(f"{path} is not a results file of tools/test.py (format {_FORMAT})")
    return document


def read_results(path: Path, space: SearchSpace) -> list[dict[str, Any]]:
    """Read the records of :func:`write_results`.

    Raises:
        ConfigError: The file is missing, of another kind, or of another search space.
    """
    document = read_document(path)
    try:
        return [{**record, "subnet": space.from_record(record)} for record in document["subnets"]]
    except ConfigError as error:
        raise ConfigError(f"results file {path} is of another search space: {error}") from error


def _to_json(space: SearchSpace, record: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in record.items() if key != "subnet"}
    plain["metrics"] = {k: float(v) if math.isfinite(v) else None for k, v in record["metrics"].items()}
    return {**plain, **space.to_record(record["subnet"])}
