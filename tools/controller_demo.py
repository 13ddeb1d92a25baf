"""Keep a latency while other processes load the CPU: ``python tools/controller_demo.py BUNDLE --out DIR``."""

import argparse
import csv
import io
import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Drive the controller of a bundle; in the middle third of the time, other processes load the CPU"
    )
    parser.add_argument("bundle", help="bundle file of tools/export_subnets.py --formats bundle")
    parser.add_argument("--out", required=True, help="folder for controller.csv and controller.png")
    parser.add_argument("--seconds", type=float, default=45, help="duration (default: 45)")
    parser.add_argument(
        "--target-latency-us", type=float, help="default: 1.25 times the most accurate subnet's, measured at the start"
    )
    parser.add_argument("--metric", help="what the costs of subnets are in (default: their only latency, else flops)")
    parser.add_argument("--load-processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    parser.add_argument("--batch-size", type=int, default=1, help="images of a call (default: 1)")
    parser.add_argument("--window", type=int, default=15, help="calls that a decision looks at (default: 15)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the network (default: 1)")
    return parser.parse_args()


def measure_us(model, images) -> float:
    """Median latency of the most accurate subnet, in microseconds a call."""
    model.select()
    model(images)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        model(images)
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def drive(controller, images, seconds: float, load_processes: int) -> list[dict]:
    """Call the controller for ``seconds``, with load in the middle third; returns a record of each call."""
    from tqdm import tqdm

    calls, load = [], []
    start = now = time.perf_counter()
    bar = tqdm(total=round(seconds), unit="s", leave=False)
    try:
        while now - start < seconds:
            if not load and seconds / 3 <= now - start < 2 * seconds / 3:
                load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(load_processes)]
            if load and now - start >= 2 * seconds / 3:
                stop(load)
            subnet = controller.current
            before = time.perf_counter()
            controller(images)
            now = time.perf_counter()
            calls.append(
                {
                    "seconds": round(before - start, 4),
                    "loaded": int(any(process.returncode is None for process in load)),
                    "subnet": subnet.name,
                    "accuracy": subnet.accuracy,
                    "latency_us": round((now - before) * 1e6),
                }
            )
            bar.update(int(now - start) - bar.n)
    finally:
        stop(load)
        bar.close()
    return calls


def stop(processes: list[subprocess.Popen]) -> None:
    """End the processes that load the CPU."""
    for process in processes:
        process.kill()
        process.wait()


def draw(calls: list[dict], names: list[str], target_us: float, window: int) -> bytes:
    """Draw latency, subnet and accuracy over time, as PNG."""
    from matplotlib.figure import Figure

    seconds = [call["seconds"] for call in calls]
    figure = Figure(figsize=(8, 7), dpi=130, layout="constrained")
    latency, chosen, accuracy = figure.subplots(3, 1, sharex=True)
    latencies = [call["latency_us"] / 1000 for call in calls]
    latency.plot(seconds, latencies, ".", ms=2.5, color="0.6", label="a call")
    middle = [statistics.median(latencies[max(0, i - window + 1) : i + 1]) for i in range(len(latencies))]
    latency.plot(seconds, middle, color="C0", lw=1.2, label=f"median of {window}")
    latency.axhline(target_us / 1000, color="C3", lw=1, ls="--", label="target")
    latency.set(ylabel="latency (ms)", ylim=(0, max(2.5 * target_us / 1000, max(middle) * 1.05)))
    chosen.step(seconds, [names.index(call["subnet"]) for call in calls], where="post", color="C1")
    step = max(1, len(names) // 8)
    chosen.set(ylabel="subnet")
    chosen.set_yticks(range(0, len(names), step), names[::step], fontsize="small")
    if all(call["accuracy"] is not None for call in calls):
        accuracy.step(seconds, [call["accuracy"] for call in calls], where="post", color="C2")
    accuracy.set(xlabel="time (s)", ylabel="accuracy (%)")
    loaded = [call["seconds"] for call in calls if call["loaded"]]
    for axes in (latency, chosen, accuracy):
        axes.grid(alpha=0.3)
        if loaded:
            axes.axvspan(loaded[0], loaded[-1], color="0.85", lw=0, zorder=0, label="other processes load the CPU")
    figure.legend(*latency.get_legend_handles_labels(), loc="outside upper center", fontsize="small", ncols=4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def main() -> None:
    """Measure, drive, draw."""
    args = parse_args()
    # Imported late: --help answers at once.
    import torch

    from pss_razor.core import ConfigError, PSSError, atomic_write, check_extra
    from pss_razor.deploy import AdaptiveController, AdaptiveModel

    try:
        check_extra("train", "matplotlib", "tqdm", what="the demonstration")
        for name, value in (("seconds", args.seconds), ("threads", args.threads), ("batch-size", args.batch_size)):
            if not value > 0:
                raise ConfigError(f"--{name} {value}: it must be positive")
        out = Path(args.out)
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file; choose another path")
        torch.set_num_threads(args.threads)
        model = AdaptiveModel.load(args.bundle)
        side = max(subnet.resolution for subnet in model.subnets)
        images = torch.randn(args.batch_size, 3, side, side, generator=torch.Generator().manual_seed(0))
        target = args.target_latency_us or 1.25 * measure_us(model, images)
        controller = AdaptiveController(model, target, args.metric, args.window)
        controller.calibrate(images)
        calls = drive(controller, images, args.seconds, args.load_processes)
        out.mkdir(parents=True, exist_ok=True)
        table = io.StringIO()
        writer = csv.DictWriter(table, calls[0])
        writer.writeheader()
        writer.writerows(calls)
        atomic_write(out / "controller.csv", table.getvalue().encode())
        names = [subnet.name for subnet in controller.ladder]
        atomic_write(out / "controller.png", draw(calls, names, target, args.window))
        moves = sum(a["subnet"] != b["subnet"] for a, b in itertools.pairwise(calls))
        met = sum(call["latency_us"] <= target for call in calls) / len(calls)
        print(f"{len(calls)} calls, {met:.1%} within {target:.0f} us, {moves} switches; see {out / 'controller.png'}")
    except PSSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
