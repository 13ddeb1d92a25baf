"""What the rehearsal found: checks, where the time went, and what the real training would take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MEMORY_BAR_MIB = 3 * 1024
# The real thing: MobileNetV1-M's 87 pools of five, on 8 processes.
REAL_PROCESSES, REAL_IMAGES, REAL_SUBNETS = 8, 50_000, 437
REAL_STEPS, REAL_EPOCHS, REAL_TRAIN_IMAGES = 1251, 250, 1_281_167
POOLS = {"pss_mbv2_flops": 24, "pss_mbv1_multi": 87}
# Sums of another order, in float32.
STATISTICS_TOLERANCE = 1e-3


def write_report(work_dir: Path, size: dict[str, Any], stages: dict[str, dict[str, Any]]) -> int:
    """Write and print the report; returns how many checks failed."""
    checks = [dict(zip(("check", "found", "wanted", "met"), row, strict=True)) for row in check(size, stages)]
    parts = list(list_parts(stages))
    estimates = list(extrapolate(size, stages))
    document = {"size": size, "checks": checks, "parts": parts, "estimates": estimates, "stages": stages}
    (work_dir / "report.json").write_text(json.dumps(document, indent=1))
    text = "\n".join(
        [
            "## Checks\n",
            *table(["", "check", "found", "wanted"], [[verdict(c["met"]), *list(c.values())[:3]] for c in checks]),
            "\n## Memory, largest process, MiB\n",
            *table(
                ["stage", "processes", "a process", "a worker"],
                [
                    [name, len(s["ranks"]), f"{s['peak_mib']:.0f}", f"{s['peak_of_a_worker_mib']:.0f}"]
                    for name, s in stages.items()
                ],
            ),
            "\n## Time of the slowest process, seconds\n",
            *table(["stage", "part", "seconds", "calls", "ms, median"], parts),
            "\n## Arithmetic from these figures, not measurement\n",
            *table(["what", "estimate", "how"], estimates),
        ]
    )
    (work_dir / "report.md").write_text(text + "\n")
    print(text)
    return sum(not c["met"] for c in checks)


def verdict(met: bool) -> str:
    """For a table."""
    return "pass" if met else "FAIL"


def table(header: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]


def check(size: dict[str, Any], stages: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str, bool]]:
    """What is checked, what was found, what must be, and whether it is."""
    for name, stage in stages.items():
        yield (
            f"{name}: runs to its end",
            stage["failure"] or f"{stage['seconds']:.0f} s",
            "exit status 0",
            not stage["failure"],
        )
    for config, pools in POOLS.items():
        for task in ("train", "test", "export"):
            if f"{config} {task}" not in stages and not (task == "export" and size["targets"].get(config) == "none"):
                yield f"{config} {task}: runs to its end", "not reached", "exit status 0", False
        ranks = stages.get(f"{config} train", {}).get("ranks", [])
        processes = size["processes"]
        for key, what in (("pools", "pools and draws"), ("parameters", "weights")):
            different = len({rank[key] for rank in ranks})
            yield (
                f"{config}: {what} on all ranks",
                f"{different} different",
                "1",
                (len(ranks), different)
                == (
                    processes,
                    1,
                ),
            )
        found = {rank["number_of_pools"] for rank in ranks}
        yield f"{config}: pools", str(sorted(found)), str(pools), found == {pools}
        different = len({rank.get("first_batch") for rank in ranks})
        yield (
            f"{config}: first batches, of one image, on all ranks",
            f"{different} different",
            f"{processes} different",
            different == processes,
        )
        yield from check_calibration(config, stages)
        yield from check_reading(config, size, stages)
    yield from check_memory(size, stages)


def check_calibration(config: str, stages: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """The largest subnet's BN statistics, in a test of several processes and in an export, which is one.

    With the stub as the test's network there are none.
    """
    if config == "pss_mbv1_multi":
        return
    what = f"{config}: BN statistics do not depend on the number of processes"
    wanted = f"{STATISTICS_TOLERANCE} at most"
    of_test, of_export = (
        [np.concatenate([np.ravel(part) for part in rank["statistics"]]) for rank in ranks if "statistics" in rank]
        for ranks in (stages.get(f"{config} {task}", {}).get("ranks", []) for task in ("test", "export"))
    )
    if not of_test or not of_export:
        yield what, "not reached", wanted, False
        return
    distance = max(float(np.abs(one - of_export[0]).max() / np.abs(of_export[0]).max()) for one in of_test)
    yield what, f"differ by {distance:.1e} of the largest", wanted, distance <= STATISTICS_TOLERANCE


def check_reading(config: str, size: dict[str, Any], stages: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """Each validation image is decoded once for all subnets, but for one that a process tries the metrics on."""
    ranks = stages.get(f"{config} test", {}).get("ranks", [])
    images = size["images"] if config == "pss_mbv1_multi" else size["tested"]
    decoded = sum(rank["decoded"]["val"] for rank in ranks)
    subnets = max((rank.get("subnets", 0) for rank in ranks), default=0)
    yield (
        f"{config} test: images decoded for {subnets} subnets",
        f"{decoded:,}",
        f"{images:,}, at most one more a process",
        images <= decoded <= images + len(ranks) and subnets > 1,
    )


def check_memory(size: dict[str, Any], stages: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """The final test of 87 pools, its network a stub: as it was, and at the real size."""
    stage = stages.get("pss_mbv1_multi test", {"peak_mib": 0.0, "ranks": [], "failure": "not reached"})
    bar = f"{MEMORY_BAR_MIB:,} MiB at most"
    good = not stage["failure"] and 0 < stage["peak_mib"] <= MEMORY_BAR_MIB
    found = f"{stage['peak_mib']:,.0f} MiB" + (f" ({stage['failure']})" if stage["failure"] else "")
    yield "final test with a stub as network: largest process", found, bar, good
    whole = [rank for rank in stage["ranks"] if len(rank.get("resident_mib", [])) > 2 and "subnets" in rank]
    estimates = [real_memory_mib(rank, size["images"]) for rank in whole]
    found = f"{max(estimates):,.0f} MiB" if estimates else "not measured"
    what = f"the same, {REAL_SUBNETS} subnets, {REAL_IMAGES:,} images, {REAL_PROCESSES} processes: extrapolated"
    yield what, found, bar, bool(estimates) and max(estimates) <= MEMORY_BAR_MIB


def real_memory_mib(rank: dict[str, Any], images: int) -> float:
    """What a process would need of the real final test: growth with predictions, then with the images gathered.

    Args:
        rank: Of a test of so many ``images``.
        images: Of all processes.
    """
    resident = rank["resident_mib"]
    share = (len(resident) - 2) / len(resident)  # the first batches fill caches
    more = REAL_IMAGES / REAL_PROCESSES / rank["images"]
    growth = max(0.0, resident[-1] - resident[1]) / share * more * REAL_SUBNETS / rank["subnets"]
    gathering = max(0.0, rank["peak_of_gathering_mib"] - resident[-1]) * REAL_IMAGES / images
    return resident[1] + growth + max(gathering, rank["peak_mib"] - resident[-1])


def list_parts(stages: dict[str, Any]) -> Iterator[list[Any]]:
    """Where the time of the slowest process went, a row for each part."""
    for name, stage in stages.items():
        for part in sorted({part for rank in stage["ranks"] for part in parts_of(rank)}):
            seconds, calls, median, _ = max(parts_of(rank).get(part, (0.0, 0, 0.0, 0.0)) for rank in stage["ranks"])
            yield [name, part, f"{seconds:.2f}", calls, f"{median * 1e3:.3f}"]


def parts_of(rank: dict[str, Any]) -> dict[str, tuple[float, int, float, float]]:
    """Part -> seconds, calls and median of a call's seconds, of one process."""
    moments = rank["moments"]
    parts = {
        part: (times["seconds"], times["calls"], times["median"], times["least"])
        for part, times in rank["times"].items()
    }
    for part, start, end in (
        ("start-up: process to runner", None, "runner built"),
        ("loader start: epoch to first batch", "training begins", "first batch"),
        ("whole training epoch", "training begins", "last iteration done"),
        ("validation and checkpoint after it", "last iteration done", "training done"),
        ("whole test", "test begins", "test done"),
        ("test, from its end to the process' end", "test done", "end"),
    ):
        if end in moments and (start is None or start in moments):
            seconds = moments[end] - moments.get(start, 0.0)
            parts[part] = (seconds, 1, seconds, seconds)
    return parts


def extrapolate(size: dict[str, Any], stages: dict[str, Any]) -> Iterator[list[str]]:
    """What of the real training and the real final test is not the network's work."""

    def slowest(stage: str, part: str) -> tuple[float, int, float, float]:
        return max(parts_of(rank).get(part, (0.0, 0, 0.0, 0.0)) for rank in stages[stage]["ranks"])

    steps = REAL_STEPS * REAL_EPOCHS
    for config in POOLS:
        stage = f"{config} train"
        if not stages.get(stage, {}).get("ranks"):
            continue
        # The first calls fill caches; of the few the quickest is nearest to what a long training has.
        for part in ("draw", "score", "hooks before or after an iteration"):
            least = slowest(stage, part)[3] * (2 if "hooks" in part else 1)
            waits = "" if part == "draw" else ", waiting for other processes included"
            how = f"{least * 1e6:.0f} µs x {steps:,} steps{waits}"
            yield [f"{config} train: {part}", f"{least * steps / 60:.1f} min", how]
        least = slowest(stage, "checkpoint save")[3]
        how = f"{least:.2f} s x {REAL_EPOCHS} epochs, pools as empty as here"
        yield [f"{config} train: checkpoints", f"{least * REAL_EPOCHS / 60:.1f} min", how]
    stage = "pss_mbv1_multi test"
    ranks = stages.get(stage, {}).get("ranks")
    if not ranks or not all("subnets" in rank for rank in ranks):
        return
    if size["images"] == REAL_IMAGES:  # of fewer, the folders take all the time
        seconds = slowest(stage, "dataset listing")[0]
        yield [
            "listing the training images",
            f"{seconds / REAL_IMAGES * REAL_TRAIN_IMAGES:.0f} s",
            f"{seconds:.2f} s for {REAL_IMAGES:,}, in the file cache; every process lists them",
        ]
    predictions, real = ranks[0]["images"] * ranks[0]["subnets"], REAL_SUBNETS * REAL_IMAGES / REAL_PROCESSES
    for part in ("evaluator processing", "prediction, with its network", "gathering and metrics"):
        seconds = slowest(stage, part)[0]
        how = f"{seconds / predictions * 1e6:.2f} µs a prediction x {real:,.0f} a process, the network a stub"
        yield [f"final test: {part}", f"{seconds / predictions * real / 60:.1f} min", how]
