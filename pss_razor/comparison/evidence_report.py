"""Tables and pictures of raw results, made again from their file."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pss_razor.comparison.evidence import Evidence, Run
from pss_razor.comparison.pool_diagnosis import kendall_tau
from pss_razor.comparison.seed_statistics import summarise_seeds
from pss_razor.comparison.summary import curves_of, format_comparison, summarise_evidence
from pss_razor.core import ConfigError
from pss_razor.visualization import ScatterPanel, draw_method_comparison, draw_scores

_COLUMNS = {
    "members_mean": "mean of the measured members",
    "pick_minus_members": "chosen - members' mean",
    "best_minus_members": "best on the images measured - members' mean",
    "tau": "tau of score and accuracy",
}


def summarise_members(evidence: Evidence) -> dict[str, dict[str, dict[str, Any]]]:
    """What the choice among the measured members of a target gains, as means over a method's targets.

    Returns:
        Method -> ``members_mean``, ``pick_minus_members``, ``best_minus_members`` and ``tau`` (Kendall's, over the
        members of a pool; targets where it is not defined are left out), each as :func:`summarise_seeds` says. What no
        seed has, such as the tau of methods without scores, is missing.
    """
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for method in evidence.methods:
        of_seeds: dict[str, dict[int, float]] = {}
        for run in evidence.runs:
            if run.method == method:
                for name, value in _gains(run, evidence.rule).items():
                    of_seeds.setdefault(name, {})[run.seed] = value
        summary[method] = {name: summarise_seeds(values) for name, values in of_seeds.items()}
    return summary


def format_evidence(evidence: Evidence) -> str:
    """All tables as Markdown, with what the results are from."""
    summary = summarise_evidence(evidence)
    seeds = " ".join(map(str, dict.fromkeys(run.seed for run in evidence.runs)))
    lines = [
        f"{evidence.accuracy.removeprefix('accuracy/')}, mean ± standard error over the seeds {seeds}; each target's "
        f"subnet is chosen on {evidence.selected_on}, measured on {evidence.measured_on}.",
        "",
    ]
    lines += [f"- {key}: {value}" for key, value in evidence.about.items()]
    lines += ["", format_comparison(summary)] if evidence.about else [format_comparison(summary)]
    lines += ["Members of the targets that were measured, mean over a method's targets.", ""]
    return "\n".join(lines) + "\n" + format_members(evidence)


def format_members(evidence: Evidence) -> str:
    """A row for each method with what :func:`summarise_members` says."""
    lines = ["| method | " + " | ".join(_COLUMNS.values()) + " |", "| --- |" + " --- |" * len(_COLUMNS)]
    for method, own in summarise_members(evidence).items():
        lines.append(f"| {method} | " + " | ".join(_cell(own.get(name)) for name in _COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def draw_accuracies(evidence: Evidence) -> bytes:
    """Accuracy against resource for all methods, as a PNG file."""
    return draw_method_comparison(curves_of(summarise_evidence(evidence)), evidence.units, evidence.accuracy)


def methods_with_scores(evidence: Evidence) -> list[str]:
    """The methods whose members have scores."""
    scored = [
        run.method for run in evidence.runs for own in run.members.values() if any(v is not None for v in own["score"])
    ]
    return list(dict.fromkeys(scored))


def draw_member_scores(evidence: Evidence, method: str) -> bytes:
    """Accuracy against score of a method's members, a panel for each pool with the members of all seeds.

    Returns:
        A PNG file.

    Raises:
        ConfigError: The method has no scores.
    """
    if method not in methods_with_scores(evidence):
        raise ConfigError(f"{method!r} has no scores; those that have are {methods_with_scores(evidence)}")
    columns: dict[str, dict[str, list[float]]] = {}
    taus: dict[str, list[float]] = {}
    for run in evidence.runs:
        for name, own in run.members.items() if run.method == method else ():
            pool = columns.setdefault(name, {"score": [], "accuracy": []})
            for score, accuracy in zip(own["score"], own["accuracy"], strict=True):
                if score is not None and accuracy is not None:
                    pool["score"].append(score)
                    pool["accuracy"].append(accuracy)
            tau = _tau(own, evidence.rule)
            taus.setdefault(name, []).extend([] if tau is None else [tau])
    panels = [
        ScatterPanel(
            f"{name.replace('_', ' ')}, tau {statistics.fmean(taus[name]):.2f}" if taus[name] else name,
            own["accuracy"],
            own["score"],
        )
        for name, own in columns.items()
    ]
    return draw_scores(panels, evidence.accuracy)


def _gains(run: Run, rule: str) -> dict[str, float]:
    best = max if rule == "greater" else min
    found: dict[str, list[float]] = {name: [] for name in _COLUMNS}
    chosen = {pick.name: pick.accuracy for pick in run.picks}
    for name, own in run.members.items():
        accuracies = [value for value in own["accuracy"] if value is not None]
        if not accuracies or name not in chosen:
            continue
        mean = statistics.fmean(accuracies)
        found["members_mean"].append(mean)
        found["pick_minus_members"].append(chosen[name] - mean)
        found["best_minus_members"].append(best(accuracies) - mean)
        tau = _tau(own, rule)
        found["tau"].extend([] if tau is None else [tau])
    return {name: statistics.fmean(values) for name, values in found.items() if values}


def _tau(members: Mapping[str, Sequence[float | None]], rule: str) -> float | None:
    tau = kendall_tau(members["score"], members["accuracy"])
    return -tau if tau is not None and rule == "less" else tau


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['mean']:.2f}" + ("" if row["standard_error"] is None else f" ± {row['standard_error']:.2f}")
