"""Measure a latency table on this machine: ``python tools/latency/build_table.py CONFIG --device cpu --out FILE``."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from command_line import new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("Measure the latency of every block of a config's search space", needs_checkpoint=False)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True, help="where to measure")
    parser.add_argument("--out", required=True, help="latency table, .json; an interrupted run continues from it")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch", type=int, default=1, help="images a call; latencies are of one image")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each block; the table has their median")
    return parse(parser)


def main() -> None:
    """Measure what the table does not have yet."""
    args = parse_args()
    # Imported late: --help answers at once.
    import torch
    from tqdm import tqdm

    from pss_razor.core import ConfigError
    from pss_razor.engine.launch import build_supernet, load_config, one_line_errors
    from pss_razor.estimators import LatencyTable
    from pss_razor.estimators.measure import describe_machine, find_geometries, measure_blocks

    with one_line_errors():
        config = load_config(args.config, args.cfg_options, "none", args.work_dir)
        if args.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("--device cuda: torch sees no GPU here; measure on the machine that has it")
        torch.set_num_threads(args.threads)
        supernet, mutator, graph = build_supernet(config)
        provenance = {
            "config": args.config,
            "backend": "torch",
            "batch": args.batch,
            "rounds": args.rounds,
            **describe_machine(args.device),
        }
        out = Path(args.out)
        latencies_us: dict = {}
        if out.exists():
            before = LatencyTable.load(out)
            same = ("backend", "batch", "threads", "device_name")
            changed = [key for key in same if before.provenance.get(key) != provenance[key]]
            if before.device != args.device or changed:
                raise ConfigError(f"{out} was measured with another {changed or 'device'}; choose another --out")
            latencies_us.update(before.latencies_us)
        blocks = {g: where for g, where in find_geometries(graph).items() if g not in latencies_us}
        with tqdm(total=len(blocks), unit="block", desc=f"{len(latencies_us)} known") as progress:
            measured = measure_blocks(supernet, mutator.active, blocks, args.device, args.batch, args.rounds)
            for timings in measured:
                latencies_us |= {geometry: timing.median_us / args.batch for geometry, timing in timings.items()}
                LatencyTable(latencies_us, args.device, provenance).save(out)
                spread = max(timing.spread_us / timing.median_us for timing in timings.values())
                progress.set_postfix_str(f"largest spread {spread:.0%}")
                progress.update(len(timings))
        print(f"{out}: {len(latencies_us)} blocks; check it with tools/latency/verify_table.py")


if __name__ == "__main__":
    main()
