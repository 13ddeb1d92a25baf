"""Check that several methods are comparable, and summarise their results over seeds."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pss_razor.core import ConfigError, atomic_write, best_of_pools
from pss_razor.evaluation.results import read_criterion, read_document
from pss_razor.visualization import draw_method_comparison

from mmengine.config import Config

# What methods must share to be compared. Their samplers differ, and so may their resolutions.
_SHARED = (
    "model.constraints",
    "model.estimators",
    "model.architecture.backbone",
    "train_dataloader",
    "test_dataloader",
    "test_evaluator",
    "train_cfg",
    "test_cfg",
    "optim_wrapper",
    "param_scheduler",
)
POOLS_MEAN = "mean over targets"
COMMON_MEAN = "mean over common targets"


def name_methods(config_files: Sequence[str]) -> list[str]:
    """File names without what they all end with: ``pss_mbv2_flops.py, usnet_mbv2_flops.py`` -> ``pss, usnet``.

    Raises:
        ConfigError: Two configs have the same file name.
    """
    stems = [Path(file).stem for file in config_files]
    for stem in stems:
        if stems.count(stem) > 1:
            raise ConfigError(f"two configs are called {stem!r}, and so would be the folders of their runs; rename one")
    words = [stem.split("_") for stem in stems]
    while len(words) > 1 and all(len(w) > 1 for w in words) and len({w[-1] for w in words}) == 1:
        words = [w[:-1] for w in words]
    return ["_".join(w) for w in words]


def check_comparable(configs: Mapping[str, Config]) -> None:
    """Check that configs differ in nothing that would make accuracies incomparable.

    Args:
        configs: Method -> its config.

    Raises:
        ConfigError: They do; the message names the setting.
    """
    (first, reference), *others = configs.items()
    for (name, config), key in itertools.product(others, _SHARED):
        wanted, found = _get(reference, key), _get(config, key)
        if wanted != found:
            where, a, b = _first_difference(key, wanted, found)
            raise ConfigError(
                f"{first} and {name} cannot be compared: {where} is {a!r} in one and {b!r} in the other; give both the "
                "same, in their configs or by --cfg-options"
            )


def summarise(runs: Mapping[str, Mapping[int, Path]]) -> dict[str, Any]:
    """Mean and standard error over seeds of every target's best subnet, for each method.

    Args:
        runs: Method -> seed -> results file.

    Returns:
        JSON-able: ``accuracy`` (name of the metric), ``units``, ``targets`` (``[metric, target]`` of all methods in
        order) and ``methods``: method -> row -> ``mean``, ``standard_error`` (None for one seed), ``values`` by seed
        and, but for means, ``resources``. Rows are ``"<metric>_<target>"``, ``largest``, ``smallest`` and two means
        over targets: the method's own, and those that all methods reach with all seeds.

    Raises:
        ConfigError: A results file is missing or is none.
    """
    documents = {
        method: {seed: read_document(path) for seed, path in by_seed.items()} for method, by_seed in runs.items()
    }
    document = next(iter(next(iter(documents.values())).values()))
    criterion = read_criterion(document)
    accuracy = criterion.name
    best = {
        method: {seed: {own.name: own for own in best_of_pools(d["subnets"], criterion)} for seed, d in by_seed.items()}
        for method, by_seed in documents.items()
    }
    every_run = [records for by_seed in best.values() for records in by_seed.values()]
    found = {own.pool for records in every_run for own in records.values() if own.pool is not None}
    metrics = list(dict.fromkeys(own.metric for records in every_run for own in records.values()))
    targets = sorted(found, key=lambda key: (metrics.index(key[0]), key[1]))
    names = {target: f"{target[0]}_{target[1]}" for target in targets}
    common = [name for name in names.values() if all(name in records for records in every_run)]

    methods: dict[str, dict[str, Any]] = {}
    for method, by_seed in best.items():
        rows: dict[str, Any] = {}
        for target, name in [*names.items(), ((None, None), "largest"), ((None, None), "smallest")]:
            records = {seed: run[name] for seed, run in by_seed.items() if name in run}
            if records:
                rows[name] = _row({seed: own.measured[accuracy] for seed, own in records.items()})
                if target[0] is not None:
                    rows[name]["resources"] = {str(s): own.resources[target[0]] for s, own in records.items()}
        of_pools = {
            seed: [own.measured[accuracy] for own in run.values() if own.pool is not None]
            for seed, run in by_seed.items()
        }
        if all(of_pools.values()):
            rows[POOLS_MEAN] = _row({seed: statistics.fmean(values) for seed, values in of_pools.items()})
        if common:
            rows[COMMON_MEAN] = _row(
                {s: statistics.fmean(run[n].measured[accuracy] for n in common) for s, run in by_seed.items()}
            )
        methods[method] = rows
    return {
        "format": 1,
        "accuracy": accuracy,
        "selected_on": document.get("selected_on"),
        "measured_on": document.get("measured_on"),
        "units": document["units"],
        "targets": [list(target) for target in targets],
        "common_targets": common,
        "methods": methods,
    }


def format_comparison(summary: Mapping[str, Any]) -> str:
    """A summary as a Markdown table."""
    methods = summary["methods"]
    units = summary["units"]
    rows = [(f"{metric}_{target}", f"{target} {units[metric]} ({metric})") for metric, target in summary["targets"]]
    rows += [(name, name) for name in ("largest", "smallest")]
    rows += [(POOLS_MEAN, "mean over the method's own targets")]
    rows += [(COMMON_MEAN, f"mean over the {len(summary['common_targets'])} targets that all methods reach")]
    seeds = max((len(row["values"]) for method in methods.values() for row in method.values()), default=0)
    lines = ["| target | " + " | ".join(methods) + " |", "| --- |" + " --- |" * len(methods)]
    for name, title in rows:
        cells = [_cell(method.get(name), seeds) for method in methods.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_comparison(summary: Mapping[str, Any], directory: Path, heading: str) -> list[Path]:
    """Write ``comparison.json``, ``comparison.md`` under a heading, and ``comparison.png``; returns the files."""
    metrics = list(dict.fromkeys(metric for metric, _ in summary["targets"]))
    curves = {
        metric: {
            method: [
                (statistics.fmean(row["resources"].values()), row["mean"], row["standard_error"] or 0.0)
                for m, target in summary["targets"]
                if m == metric and (row := rows.get(f"{metric}_{target}")) is not None
            ]
            for method, rows in summary["methods"].items()
        }
        for metric in metrics
    }
    contents = {
        "comparison.json": json.dumps(summary, indent=1).encode(),
        "comparison.md": f"{heading}\n\n{format_comparison(summary)}".encode(),
        "comparison.png": draw_method_comparison(curves, summary["units"], summary["accuracy"]),
    }
    for name, content in contents.items():
        atomic_write(directory / name, content)
    return [directory / name for name in contents]


def _row(values: Mapping[int, float]) -> dict[str, Any]:
    """Mean and standard error over seeds."""
    numbers = list(values.values())
    error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else None
    return {
        "mean": statistics.fmean(numbers),
        "standard_error": error,
        "values": {str(seed): value for seed, value in values.items()},
    }


def _cell(row: Mapping[str, Any] | None, seeds: int) -> str:
    if row is None:
        return "-"
    error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.2f}"
    count = len(row["values"])
    return f"{row['mean']:.2f}{error}" + (f" ({count} of {seeds} seeds)" if count < seeds else "")


def _get(config: Config, key: str) -> Any:
    """A setting as plain values, None if it is not there."""
    value: Any = config.to_dict()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _first_difference(key: str, a: Any, b: Any) -> tuple[str, Any, Any]:
    """Where two settings differ, and how."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in [*a, *(name for name in b if name not in a)]:
            if a.get(name) != b.get(name):
                return _first_difference(f"{key}.{name}", a.get(name), b.get(name))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            if x != y:
                return _first_difference(f"{key}.{index}", x, y)
    return key, a, b
