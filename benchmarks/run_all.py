"""Run all benchmarks, each in a process of its own: ``python benchmarks/run_all.py --out FILE.json``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pss_razor.host_settings import faster

HERE = Path(__file__).parent
# As the machine is: what they measure is resident memory, and what settings do.
PLAIN = ("training_memory", "host_settings")
BENCHMARKS = (
    "training_step",
    "converted_step",
    "host_settings",
    "switching",
    "candidate_costs",
    "sampling",
    "pool_evaluation",
    "two_processes",
    "training_memory",
    "start_up",
    "pool_simulation",
    "bundle",
    "activation_latency",
)
# So that all take twenty minutes at most: without options, draws of six converted networks take as long by themselves.
OPTIONS = {"sampling": ["--networks", "resnet18,mobilenet_v3_large"]}


def main() -> None:
    """Print all figures and write them to one file."""
    parser = argparse.ArgumentParser(description="run all benchmarks; set OMP_NUM_THREADS=1 for steady figures")
    parser.add_argument("--out", type=Path, help="file for the figures, with machine and versions, as JSON")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="some of them")
    args = parser.parse_args()
    results: dict[str, object] = {}
    failed = []
    for name in args.only:
        print(f"# {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "figures.json")
            command = [
                sys.executable,
                "-W",
                "ignore",
                str(HERE / f"{name}.py"),
                "--out",
                str(out),
                *OPTIONS.get(name, []),
            ]
            environment = {**os.environ, **({} if name in PLAIN else faster(os.environ))}
            if subprocess.run(command, env=environment).returncode != 0:
                failed.append(name)
                continue
            results[name] = json.loads(out.read_text())
    if args.out is not None:
        args.out.write_text(json.dumps(results, indent=1) + "\n")
    if failed:
        sys.exit(f"error: these benchmarks failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
