"""Run by test_closed_process_group.py, once in each of two processes: ``pss-train`` or ``pss-test``, counting gloo's
threads before and after it leaves its process group."""

import json
import os
import sys
from pathlib import Path

from pss_razor.commands import test, train
from pss_razor.engine import launch


def count_gloo_threads() -> int:
    return sum("gloo" in (task / "comm").read_text() for task in Path("/proc/self/task").iterdir())


def main() -> None:
    command, counts_file, *arguments = sys.argv[1:]
    counts, close = [], launch.close_process_group

    def counted_close() -> None:
        counts.append(count_gloo_threads())
        close()
        counts.append(count_gloo_threads())

    launch.close_process_group = counted_close
    sys.argv = [command, *arguments, "--launcher", "pytorch"]
    {"train": train.main, "test": test.main}[command]()
    Path(f"{counts_file}_{os.environ['RANK']}.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
