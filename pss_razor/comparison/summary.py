"""Check that several methods are comparable, and summarise their results over seeds."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pss_razor.comparison.evidence import Evidence, Pick, collect_evidence
from pss_razor.comparison.seed_statistics import (
    find_dominating,
    mean_over_log_resource,
    paired_difference,
    summarise_seeds,
)
from pss_razor.core import ConfigError, atomic_write
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
_RESOLUTIONS = "model.architecture.resolutions"
POOLS_MEAN = "mean over targets"
COMMON_MEAN = "mean over common targets"
ALONE = "trained alone"
_ENDS = ("largest", "smallest")


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
    spread = any("num_targets" in constraint for constraint in _get(reference, "model.constraints") or ())
    for name, config in others:
        if spread and _get(reference, _RESOLUTIONS) != _get(config, _RESOLUTIONS):
            raise ConfigError(
                f"{first} and {name} cannot be compared: num_targets spreads the targets over the resources of each, "
                "and their resolutions differ; give the constraints first, last and step"
            )


def summarise(
    runs: Mapping[str, Mapping[int, Path]], alone: Mapping[str, Mapping[int, float]] | None = None
) -> dict[str, Any]:
    """:func:`summarise_evidence` of results files.

    Args:
        runs: Method -> seed -> results file.
        alone: Name of a pool -> seed -> accuracy of its subnet trained alone, measured on the same images.

    Raises:
        ConfigError: A results file is missing or is none, or they cannot be compared.
    """
    return summarise_evidence(collect_evidence(runs, alone))


def summarise_evidence(evidence: Evidence) -> dict[str, Any]:
    """Statistics over seeds of every target's chosen subnet, for each method and each pair of methods.

    Returns:
        JSON-able: ``accuracy`` (name of the metric), ``units``, ``images`` and

        - ``targets``: ``[metric, target]`` of all methods in order; ``common_targets``: names of those that all methods
          reach with all seeds.
        - ``methods``: method -> row -> ``mean``, ``standard_error`` (None for one seed), ``values`` by seed and, for
          targets, ``resources``. Rows are ``"<metric>_<target>"``, ``largest``, ``smallest``, means over targets (the
          method's own, and the common ones) and ``"mean over log(<metric>)"``, see :func:`mean_over_log_resource`.
          ``"trained alone"`` is one more method, with targets only, if there are such accuracies.
        - ``pairs``: for each two methods that share a seed, ``first``, ``second``, ``common_targets`` and ``rows`` of
          first minus second with the same names, paired by seed, see :func:`paired_difference`. The mean is over the
          targets that both reach with all seeds of both, the mean over log(metric) over the range that both cover.
        - ``dominated``: method -> name of a target -> what :func:`find_dominating` found: a cheaper target's chosen
          subnet or the smallest one that is better by more than a standard error. None instead where it cannot be
          known: one seed, and no accuracy in percent.
        - ``training``: method -> mean over seeds of what its runs say of their training (steps, images, gmacs).
    """
    picks = {method: evidence.of(method) for method in evidence.methods}
    every_run = [run for by_seed in picks.values() for run in by_seed.values()]
    found = {pick.pool for run in every_run for pick in run.values() if pick.pool is not None}
    metrics = list(dict.fromkeys(pick.metric for run in every_run for pick in run.values() if pick.metric is not None))
    targets = sorted(found, key=lambda key: (metrics.index(key[0]), key[1]))
    names = {f"{metric}_{target}": (metric, target) for metric, target in targets}
    common = [name for name in names if all(name in run for run in every_run)]

    methods: dict[str, dict[str, Any]] = {}
    for method, by_seed in picks.items():
        rows: dict[str, Any] = {}
        for name in [*names, *_ENDS]:
            own = {seed: run[name] for seed, run in by_seed.items() if name in run}
            if own:
                rows[name] = summarise_seeds({seed: pick.accuracy for seed, pick in own.items()})
                if name in names:
                    rows[name]["resources"] = {str(s): pick.resources[names[name][0]] for s, pick in own.items()}
        accuracies = _accuracies(by_seed)
        _add_row(
            rows, POOLS_MEAN, {s: _mean([a for n, a in run.items() if n in names]) for s, run in accuracies.items()}
        )
        _add_row(rows, COMMON_MEAN, {s: _mean([run[n] for n in common]) for s, run in accuracies.items()})
        for metric in metrics:
            means = {seed: mean_over_log_resource(_points(run, metric)) for seed, run in by_seed.items()}
            _add_row(rows, mean_over_log(metric), means)
        methods[method] = rows
    of_runs = {method: _accuracies(by_seed) for method, by_seed in picks.items()}
    if evidence.alone:
        methods[ALONE] = {name: summarise_seeds(own) for name, own in evidence.alone.items() if name in names}
        seeds = dict.fromkeys(seed for own in evidence.alone.values() for seed in own)
        of_runs[ALONE] = {s: {n: own[s] for n, own in evidence.alone.items() if s in own and n in names} for s in seeds}
    pairs = [
        _compare(first, second, of_runs, picks, [*names], metrics)
        for first, second in itertools.combinations(of_runs, 2)
        if of_runs[first].keys() & of_runs[second].keys()
    ]
    return {
        "format": 1,
        "accuracy": evidence.accuracy,
        "rule": evidence.rule,
        "images": evidence.images,
        "selected_on": evidence.selected_on,
        "measured_on": evidence.measured_on,
        "units": dict(evidence.units),
        "targets": [list(target) for target in targets],
        "common_targets": common,
        "methods": methods,
        "pairs": pairs,
        "dominated": {method: find_dominated(evidence, method) for method in picks},
        "training": {method: _mean_training(evidence, method) for method in picks},
    }


def find_dominated(evidence: Evidence, method: str) -> dict[str, Any] | None:
    """The targets of a method whose chosen subnet is dominated by a cheaper one of the same supernets.

    Cheaper ones are the chosen subnets of the lower targets of the same metric, and the smallest.

    Returns:
        Name -> what :func:`find_dominating` says; None if there is one seed and no accuracy in percent.
    """
    by_seed = evidence.of(method)
    in_percent = evidence.accuracy.startswith("accuracy/")
    if len(by_seed) == 1 and not in_percent:
        return None
    accuracies: dict[str, dict[int, float]] = {}
    for seed, run in by_seed.items():
        for pick in run.values():
            accuracies.setdefault(pick.name, {})[seed] = pick.accuracy
    pools = {pick.pool: pick.name for run in by_seed.values() for pick in run.values() if pick.pool is not None}
    found = {}
    for metric, target in sorted(pools):
        lower = [name for (m, t), name in pools.items() if m == metric and t < target]
        cheaper = {name: accuracies[name] for name in ["smallest", *lower] if name in accuracies}
        name = pools[metric, target]
        images = evidence.images if in_percent else None
        dominating = find_dominating(accuracies[name], cheaper, images, evidence.rule)
        if dominating is not None:
            found[name] = dominating
    return found


def mean_over_log(metric: str) -> str:
    """Name of the row with the mean accuracy over log-resource."""
    return f"mean over log({metric})"


def format_comparison(summary: Mapping[str, Any]) -> str:
    """A summary as Markdown tables: accuracies, paired differences, and trainings where they are known."""
    tables = [format_accuracies(summary)]
    if summary["pairs"]:
        tables.append(
            "First minus second, paired by seed: mean ± standard error, and in brackets their ratio.\n\n"
            + format_differences(summary)
        )
    if any(summary["training"].values()):
        tables.append("Training, mean over the seeds.\n\n" + format_training(summary))
    return "\n".join(tables)


def format_accuracies(summary: Mapping[str, Any]) -> str:
    """A row for each target, a column for each method; dominated targets are marked, and counted in the last row."""
    methods = summary["methods"]
    units = summary["units"]
    metrics = list(dict.fromkeys(metric for metric, _ in summary["targets"]))
    rows = [(f"{metric}_{target}", f"{target} {units[metric]} ({metric})") for metric, target in summary["targets"]]
    rows += [(name, name) for name in _ENDS]
    rows += [(POOLS_MEAN, "mean over the method's own targets")]
    rows += [(COMMON_MEAN, f"mean over the {len(summary['common_targets'])} targets that all methods reach")]
    rows += [(mean_over_log(metric), f"mean over the method's own range of log({metric})") for metric in metrics]
    seeds = max((len(row["values"]) for method in methods.values() for row in method.values()), default=0)
    lines = ["| target | " + " | ".join(methods) + " |", "| --- |" + " --- |" * len(methods)]
    for name, title in rows:
        cells = [
            _cell(own.get(name), seeds) + (" ▼" if name in (summary["dominated"].get(method) or {}) else "")
            for method, own in methods.items()
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    counts = [
        "-" if (own := summary["dominated"].get(method)) is None else f"{len(own)} of {_count_targets(summary, method)}"
        for method in methods
    ]
    lines.append("| targets dominated by a cheaper subnet (▼) | " + " | ".join(counts) + " |")
    return "\n".join(lines) + "\n"


def format_differences(summary: Mapping[str, Any]) -> str:
    """A row for each pair of methods: the means first, then every target."""
    metrics = list(dict.fromkeys(metric for metric, _ in summary["targets"]))
    columns = [(COMMON_MEAN, "mean over targets that both reach")]
    columns += [(mean_over_log(metric), f"mean over their common range of log({metric})") for metric in metrics]
    columns += [(f"{m}_{t}", f"{t} {summary['units'][m]} ({m})") for m, t in summary["targets"]]
    columns += [(name, name) for name in _ENDS]
    lines = ["| methods | " + " | ".join(title for _, title in columns) + " |", "| --- |" + " --- |" * len(columns)]
    for pair in summary["pairs"]:
        cells = [_difference_cell(pair["rows"].get(name)) for name, _ in columns]
        cells[0] += f", {len(pair['common_targets'])} targets" if pair["common_targets"] else ""
        lines.append(f"| {pair['first']} - {pair['second']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def format_training(summary: Mapping[str, Any]) -> str:
    """A row for each method with what its training cost."""
    columns = list(dict.fromkeys(name for own in summary["training"].values() for name in own))
    lines = ["| method | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for method, own in summary["training"].items():
        lines.append(f"| {method} | " + " | ".join(_count_cell(own.get(c)) for c in columns) + " |")
    return "\n".join(lines) + "\n"


def curves_of(summary: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Metric -> method -> resource, mean accuracy and its standard error (0 if unknown) of every target."""
    metrics = list(dict.fromkeys(metric for metric, _ in summary["targets"]))
    return {
        metric: {
            method: [
                (statistics.fmean(row["resources"].values()), row["mean"], row["standard_error"] or 0.0)
                for m, target in summary["targets"]
                if m == metric and (row := rows.get(f"{metric}_{target}")) is not None
            ]
            for method, rows in summary["methods"].items()
            if method != ALONE
        }
        for metric in metrics
    }


def write_comparison(summary: Mapping[str, Any], directory: Path, heading: str) -> list[Path]:
    """Write ``comparison.json``, ``comparison.md`` under a heading, and ``comparison.png``; returns the files."""
    contents = {
        "comparison.json": json.dumps(summary, indent=1).encode(),
        "comparison.md": f"{heading}\n\n{format_comparison(summary)}".encode(),
        "comparison.png": draw_method_comparison(curves_of(summary), summary["units"], summary["accuracy"]),
    }
    for name, content in contents.items():
        atomic_write(directory / name, content)
    return [directory / name for name in contents]


def _compare(
    first: str,
    second: str,
    of_runs: Mapping[str, Mapping[int, Mapping[str, float]]],
    picks: Mapping[str, Mapping[int, Mapping[str, Pick]]],
    names: Sequence[str],
    metrics: Sequence[str],
) -> dict[str, Any]:
    """Paired differences of two methods."""
    seeds = [seed for seed in of_runs[first] if seed in of_runs[second]]
    both = [{seed: of_runs[method][seed] for seed in seeds} for method in (first, second)]
    common = [name for name in names if all(name in run for by_seed in both for run in by_seed.values())]
    rows: dict[str, Any] = {}

    def add(name: str, a: Mapping[int, float], b: Mapping[int, float]) -> None:
        row = paired_difference(a, b)
        if row is not None:
            rows[name] = row

    for name in [*names, *_ENDS]:
        add(name, *({s: run[name] for s, run in by_seed.items() if name in run} for by_seed in both))
    if common:
        add(COMMON_MEAN, *({s: statistics.fmean(run[n] for n in common) for s, run in own.items()} for own in both))
    for metric in metrics if ALONE not in (first, second) else ():
        over_log: tuple[dict[int, float], dict[int, float]] = {}, {}
        for seed in seeds:
            curves = [_points(picks[method][seed], metric) for method in (first, second)]
            if all(curves):
                low, high = max(min(c)[0] for c in curves), min(max(c)[0] for c in curves)
                a, b = (mean_over_log_resource(curve, low, high) for curve in curves)
                if a is not None and b is not None:
                    over_log[0][seed], over_log[1][seed] = a, b
        add(mean_over_log(metric), *over_log)
    return {"first": first, "second": second, "common_targets": common, "rows": rows}


def _accuracies(by_seed: Mapping[int, Mapping[str, Pick]]) -> dict[int, dict[str, float]]:
    return {seed: {name: pick.accuracy for name, pick in run.items()} for seed, run in by_seed.items()}


def _points(run: Mapping[str, Pick], metric: str) -> list[tuple[float, float]]:
    """(resource, accuracy) of the chosen subnets of a metric's targets."""
    return [(pick.resources[metric], pick.accuracy) for pick in run.values() if pick.metric == metric]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _add_row(rows: dict[str, Any], name: str, values: Mapping[int, float | None]) -> None:
    """Add a row if every seed has a value."""
    known = {seed: value for seed, value in values.items() if value is not None}
    if len(known) == len(values):
        rows[name] = summarise_seeds(known)


def _mean_training(evidence: Evidence, method: str) -> dict[str, float]:
    trainings = [run.training or {} for run in evidence.runs if run.method == method]
    return {
        name: statistics.fmean(t[name] for t in trainings) for name in trainings[0] if all(name in t for t in trainings)
    }


def _count_targets(summary: Mapping[str, Any], method: str) -> int:
    return sum(f"{metric}_{target}" in summary["methods"][method] for metric, target in summary["targets"])


def _cell(row: Mapping[str, Any] | None, seeds: int) -> str:
    if row is None:
        return "-"
    error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.2f}"
    count = len(row["values"])
    return f"{row['mean']:.2f}{error}" + (f" ({count} of {seeds} seeds)" if count < seeds else "")


def _count_cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _difference_cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.2f}"
    return f"{row['mean']:+.2f}{error}" + ("" if row["ratio"] is None else f" ({row['ratio']:.1f})")


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
