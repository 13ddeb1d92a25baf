"""Raw results of comparisons: gather them into a file, and make tables and pictures from such files.

``python tools/evidence_report.py collect pss=DIR uniform=DIR --out docs/evidence/fashion.json``, then
``python tools/evidence_report.py report docs/evidence/*.json --out-dir docs/evidence``.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from pss_razor.commands.command_line import one_line_errors

_SEED_FOLDER = re.compile(r"seed(\d+)")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Gather raw results of comparisons, and make tables and pictures")
    commands = parser.add_subparsers(dest="command", required=True)
    collect = commands.add_parser("collect", help="gather results of tools/compare_samplers.py into one file")
    collect.add_argument("methods", nargs="+", metavar="METHOD=DIR", help="folder with seed<N>/pool_results.json")
    collect.add_argument("--out", required=True, help="file to write, .json")
    collect.add_argument("--seeds", nargs="+", type=int, help="only these seeds (default: all that are there)")
    collect.add_argument(
        "--alone", nargs="+", metavar="FILE", help="alone.json of tools/train_alone.py, one for each seed"
    )
    collect.add_argument("--about", nargs="+", default=[], metavar="KEY=TEXT", help="e.g. device='2 cores of an EPYC'")
    report = commands.add_parser("report", help="tables (.md) and two pictures (.png) of each file")
    report.add_argument("files", nargs="+", metavar="FILE", help="file of `collect`")
    report.add_argument("--out-dir", required=True, help="folder for <name>.md, <name>_accuracy.png, <name>_scores.png")
    report.add_argument(
        "--scores-of", metavar="METHOD", help="whose scores are drawn (default: the first that has some)"
    )
    return parser.parse_args()


def split_pairs(texts: list[str], option: str) -> dict[str, str]:
    """``KEY=VALUE`` texts as a table."""
    from pss_razor.core import ConfigError

    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in pairs:
            raise ConfigError(f"{option} {text}: write NAME=VALUE, each name once")
        pairs[name] = value
    return pairs


def find_runs(folder: Path, seeds: list[int] | None) -> dict[int, Path]:
    """Seed -> results file in a method's folder."""
    from pss_razor.core import ConfigError
    from pss_razor.evaluation.results import RESULTS_FILE

    found = {
        int(match[1]): path
        for path in folder.glob(f"*/{RESULTS_FILE}")
        if (match := _SEED_FOLDER.fullmatch(path.parent.name))
    }
    wanted = sorted(found) if seeds is None else seeds
    missing = [seed for seed in wanted if seed not in found]
    if missing or not wanted:
        what = f"seeds {missing}" if missing else "any seed"
        raise ConfigError(f"{folder} has no results of {what}: no seed<N>/{RESULTS_FILE}; it has seeds {sorted(found)}")
    return {seed: found[seed] for seed in wanted}


def read_alone(paths: list[Path]) -> dict[str, dict[int, float]]:
    """Pool -> seed -> accuracy of subnets that were trained alone, of files of tools/train_alone.py."""
    from pss_razor.core import ConfigError, is_number, parse_json

    table: dict[str, dict[int, float]] = {}
    for path in paths:
        try:
            content: Any = parse_json(path.read_bytes())
            seed, found = content["seed"], {own["name"]: own["alone"] for own in content["subnets"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"--alone {path} is no alone.json of tools/train_alone.py: {error!r:.200}") from error
        if type(seed) is not int or not all(isinstance(n, str) and is_number(value) for n, value in found.items()):
            raise ConfigError(f"--alone {path}: the seed is no whole number, or an accuracy is no number")
        for name, value in found.items():
            if seed in table.setdefault(name, {}):
                raise ConfigError(f"--alone {path}: {name} of seed {seed} is in another file, too")
            table[name][seed] = value
    return table


def main() -> None:
    """Gather, or report."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from pss_razor.comparison.evidence import collect_evidence, read_evidence
        from pss_razor.comparison.evidence_report import (
            draw_accuracies,
            draw_member_scores,
            format_evidence,
            methods_with_scores,
        )
        from pss_razor.core import ConfigError, atomic_write

        if args.command == "collect":
            if not args.out.endswith(".json"):
                raise ConfigError(f"--out {args.out}: raw results are JSON; end the name with .json")
            methods = split_pairs(args.methods, "collect")
            runs = {method: find_runs(Path(folder), args.seeds) for method, folder in methods.items()}
            alone = read_alone(list(map(Path, args.alone))) if args.alone is not None else None
            evidence = collect_evidence(runs, alone, split_pairs(args.about, "--about"))
            Path(args.out).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(args.out, evidence.to_json())
            print(f"written: {args.out}, {len(evidence.runs)} runs of {len(methods)} methods")
            return
        out_dir = Path(args.out_dir)
        for file in map(Path, args.files):
            evidence = read_evidence(file)
            scored = [args.scores_of] if args.scores_of is not None else methods_with_scores(evidence)[:1]
            contents = {
                f"{file.stem}.md": format_evidence(evidence).encode(),
                f"{file.stem}_accuracy.png": draw_accuracies(evidence),
                **{f"{file.stem}_scores.png": draw_member_scores(evidence, method) for method in scored},
            }
            out_dir.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                atomic_write(out_dir / name, content)
                print(f"written: {out_dir / name}")


if __name__ == "__main__":
    main()
