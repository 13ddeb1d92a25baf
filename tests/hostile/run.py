"""Reads hostile files of every kind: ``python tests/hostile/run.py --cases 1000 --seed 1``, cases of each kind.

Every one must load or end in one ``PSSError``, within a time and memory in proportion to its size. A case that does
not is named, and can be run alone: ``--kind bundle --only 17``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import gc
import io
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

# Besides what is in proportion to the size of the file.
LEAST_MIB = 48
LEAST_SECONDS = 2.0
MIB_PER_MB = 400
SECONDS_PER_MB = 60.0
# For all together, and where nothing else stops a case.
LIMIT_MIB = 3072
WATCHDOG_SECONDS = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", help="one kind of file; all if left out")
    parser.add_argument("--only", type=int, help="one case")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    from kinds import make_kinds

    failures = 0
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        kinds = make_kinds(folder)
        gc.collect()
        gc.freeze()  # what is there stays: looking through it for each case would take most of the time
        limit = status("VmSize") * 1024 + LIMIT_MIB * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for kind in [args.kind] if args.kind else kinds:
            cases = range(args.cases) if args.only is None else [args.only]
            failures += run(kind, kinds[kind], cases, args.seed, folder, show=args.only is not None)
    return 1 if failures else 0


def run(name, kind, cases, seed, folder, show):
    from pss_razor.core import PSSError

    outcomes = collections.Counter()
    worst_seconds = worst_mib = (0.0, 0)
    for index in cases:
        path = folder / "case"
        with contextlib.redirect_stderr(io.StringIO()):
            kind.make(random.Random(f"{seed} {name} {index}"), path)
        files = [path] if path.is_file() else list(path.rglob("*"))
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        gc.collect()
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)
        start = time.process_time()
        problem = None
        try:
            kind.read(path)
            outcome = "loads"
        except PSSError as error:
            outcome = "PSSError"
            message = str(error)
            if len(message) > 5000 or not message.isprintable():
                problem = f"a message of {len(message)} characters: {message!r:.200}"
        except BaseException:
            lines = traceback.format_exc().splitlines()
            problem = "\n".join(line[:300] for line in lines[-12:])
        seconds = time.process_time() - start
        faulthandler.cancel_dump_traceback_later()
        mib = (status("VmHWM") - before) / 1024
        if seconds > LEAST_SECONDS + SECONDS_PER_MB * megabytes or mib > LEAST_MIB + MIB_PER_MB * megabytes:
            problem = (problem or "") + f" {seconds:.2f} s, {mib:.0f} MiB"
        if problem:
            outcome = "FAILS"
            print(f"{name}, case {index} of seed {seed}, {megabytes:.3f} MB: {problem}", flush=True)
        if show:
            print(outcome, f"{seconds:.3f} s, {mib:.1f} MiB, {megabytes:.3f} MB", locals().get("message"))
        outcomes[outcome] += 1
        worst_seconds = max(worst_seconds, (seconds, index))
        worst_mib = max(worst_mib, (mib, index))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(
        f"{name}: {dict(outcomes)}; longest {worst_seconds[0]:.2f} s (case {worst_seconds[1]}), most "
        f"{worst_mib[0]:.0f} MiB (case {worst_mib[1]})",
        file=sys.__stdout__,
        flush=True,
    )
    return outcomes["FAILS"]


def status(field):
    """Of this process, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise KeyError(field)


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    sys.exit(main())
