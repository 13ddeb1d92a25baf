"""What pools gain in different trainings: ``python benchmarks/pool_gains.py NAME=DIAGNOSIS.json … --out FILE.json``.

Takes what ``tools/diagnose_pools.py`` left of each training. Prints a line of each, and leaves the figures of all
pools in FILE with a picture beside it: how much better the best by score of a pool is than fresh draws of its target,
by how often the pool was visited; and than the smallest subnet, by target.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import write_with_picture
from matplotlib.figure import Figure

KEPT = ("visits", "visits_a_member", "steps_since_visit", "pick", "fresh_mean", "members_mean", "pick_minus_fresh",
        "tau_score_accuracy")  # fmt: skip
_MARKERS = "osD^vP*X<>"


def gather(diagnosis: Mapping[str, Any]) -> dict[str, Any]:
    """Of one training: the figures of its pools, their means, and the smallest and the largest subnet's accuracy."""
    return {
        "step": diagnosis["step"],
        "images": diagnosis["images"],
        "smallest": diagnosis["smallest"]["accuracy"],
        "largest": diagnosis["largest"]["accuracy"],
        "pools": [
            {"target": own["target"], **{key: own["figures"][key] for key in KEPT}}
            for own in diagnosis["pools"].values()
        ],
        "means": {key: diagnosis["means"][key] for key in KEPT},
    }


def beaten_by_smallest(run: Mapping[str, Any]) -> int:
    """How many picks are no better than the smallest subnet."""
    return sum(own["pick"] is not None and own["pick"] <= run["smallest"] for own in run["pools"])


def line_of(name: str, run: Mapping[str, Any]) -> str:
    """What is printed of a training."""

    def mean(key: str, form: str) -> str:
        own = run["means"][key]
        if own["mean"] is None:
            return "-"
        error = "" if own["standard_error"] is None else f" ± {own['standard_error']:{form.lstrip('+')}}"
        return f"{own['mean']:{form}}{error}"

    return (
        f"{name}: {mean('pick_minus_fresh', '+.1f')} points over fresh draws ({run['step']} steps, {len(run['pools'])} "
        f"pools of {mean('visits', '.0f')} visits, last {mean('steps_since_visit', '.0f')} steps ago, tau "
        f"{mean('tau_score_accuracy', '.2f')}; {beaten_by_smallest(run)} picks no better than the smallest subnet)"
    )


def draw(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Gain by visits, and picks beside the smallest subnet by target."""
    figure = Figure(figsize=(13, 5), dpi=110, layout="constrained")
    gains, cheap = figure.subplots(1, 2)
    for place, (name, run) in enumerate(runs.items()):
        style = dict(color=f"C{place % 10}", marker=_MARKERS[place % len(_MARKERS)])
        pools = [own for own in run["pools"] if own["pick_minus_fresh"] is not None]
        visits, gained = ([own[key] for own in pools] for key in ("visits", "pick_minus_fresh"))
        gains.scatter(visits, gained, s=10, alpha=0.4, **style)
        error = run["means"]["pick_minus_fresh"]["standard_error"]
        gains.errorbar(statistics.fmean(visits), statistics.fmean(gained), error, capsize=4, ms=9, label=name, **style)
        over = [own["pick"] - run["smallest"] for own in pools]
        cheap.plot([own["target"] for own in pools], over, lw=1, ms=5, **style)
    for axes in (gains, cheap):
        axes.axhline(0, color="black", lw=0.8, ls=":")
    gains.set(xscale="log", xlabel="visits of a pool", ylabel="best by score - mean of fresh draws, points",
              title="What pools gain (small: each pool; large: mean ± standard error)")  # fmt: skip
    cheap.set(
        xlabel="target", ylabel="best by score - smallest subnet, points", title="Picks beside the smallest subnet"
    )
    figure.legend(*gains.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def named_file(text: str) -> tuple[str, Path]:
    """Name and path of ``NAME=FILE``."""
    name, _, file = text.partition("=")
    if not (name and Path(file).is_file()):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=FILE with the diagnosis.json of tools/diagnose_pools.py")
    return name, Path(file)


def main() -> None:
    """Gather, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", type=named_file, metavar="NAME=FILE", help="diagnosis.json of tools/diagnose_pools.py"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write, .json; the picture goes beside it")
    args = parser.parse_args()
    runs = {}
    for name, file in args.runs:
        runs[name] = gather(json.loads(file.read_text()))
        print(line_of(name, runs[name]))
    write_with_picture(args.out, runs, draw(runs))


if __name__ == "__main__":
    main()
