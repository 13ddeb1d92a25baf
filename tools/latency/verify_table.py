"""Time whole subnets and compare with a table: ``python tools/latency/verify_table.py CONFIG TABLE``."""

import argparse
from pathlib import Path

from pss_razor.commands.command_line import new_parser, one_line_errors, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("Compare a latency table's predictions with whole subnets", needs_checkpoint=False)
    parser.add_argument("table", help="latency table of tools/latency/build_table.py, measured on this machine")
    parser.add_argument("--subnets", type=int, default=30, help="how many random subnets, besides largest and smallest")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each subnet")
    parser.add_argument("--threads", type=int, help="CPU threads (default: those of the table)")
    parser.add_argument("--seed", type=int, default=0, help="which subnets")
    parser.add_argument(
        "--store-correction",
        action="store_true",
        help="fit latency = factor * prediction + offset on half of the subnets, report on the others, and store it",
    )
    return parse(parser)


def main() -> None:
    """Time, compare, report."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        import dataclasses

        import numpy as np
        import torch
        from tqdm import tqdm

        from pss_razor.core import ConfigError
        from pss_razor.engine.launch import load_config
        from pss_razor.estimators import LatencyTable, latency_cost
        from pss_razor.estimators.latency.inference_backends import inference_backend
        from pss_razor.estimators.latency.timing import MachineSpeed, time_interleaved
        from pss_razor.models import build_supernet
        from pss_razor.models.static_subnet import static_subnet

        if args.subnets < 2 or args.rounds < 1:
            raise ConfigError(f"--subnets {args.subnets} must be at least 2 and --rounds {args.rounds} at least 1")
        stored = LatencyTable.load(args.table)
        # Predictions are without the correction, which may be fitted here.
        table = dataclasses.replace(stored, correction=(1.0, 0.0))
        batch, backend = table.provenance.get("batch", 1), table.provenance.get("backend", "torch")
        prepare = inference_backend(backend, table.device, args.threads or table.provenance.get("threads", 1))
        config = load_config(args.config, args.cfg_options, "none", args.work_dir)
        supernet, mutator, graph = build_supernet(config)
        space = mutator.space
        generator = np.random.default_rng(args.seed)
        drawn = [space.decode(generator.integers(space.shape)) for _ in range(args.subnets)]
        subnets = [space.largest, space.smallest, *drawn]
        predicted = latency_cost(table, graph)(space.encode(subnets))
        input_size = config.model.get("input_size")
        progress = tqdm(subnets, f"subnets for {backend}", unit="subnet", leave=False)
        with torch.inference_mode():
            calls = [
                prepare(*static_subnet(supernet, mutator, subnet, table.device, batch, input_size))
                for subnet in progress
            ]
            # The reference is the smallest subnet, as when the table was measured.
            speed = MachineSpeed(calls[1], table.device, table.provenance.get("reference_us"))
            factor_now = speed.factor()
            timings = time_interleaved(calls, args.rounds, table.device, speed)
        measured = np.array([timing.median_us for timing in timings]) / batch
        print("latency_us measured, predicted:")
        for subnet, real, guess in zip(subnets, measured, predicted, strict=True):
            print(f"{real:10.1f} {guess:10.1f}  {subnet}")
        if "reference_us" in table.provenance:
            print(
                f"the smallest subnet takes {1 / factor_now:.2f} of the time that it took for the table; measured "
                "latencies are brought to the table's speed of the machine"
            )
        report("of the sum over blocks", measured, predicted)
        if stored.correction != (1.0, 0.0):
            factor, offset_us = stored.correction
            report("with the stored correction", measured, factor * predicted + offset_us)
        if args.store_correction:
            fit, check = slice(0, None, 2), slice(1, None, 2)
            factor, offset_us = np.polyfit(predicted[fit], measured[fit], 1)
            report("corrected, on the other half", measured[check], factor * predicted[check] + offset_us)
            dataclasses.replace(table, correction=(float(factor), float(offset_us))).save(Path(args.table))
            print(f"stored in {args.table}: latency = {factor:.4f} * prediction + {offset_us:.1f} us")


def report(what: str, measured, predicted) -> None:
    """Print the relative error of predictions, and how well they rank."""
    import numpy as np
    from scipy.stats import spearmanr

    error = np.abs(predicted / measured - 1)
    rank = spearmanr(measured, predicted).statistic
    print(
        f"error {what}: median {np.median(error):.1%}, worst {error.max():.1%}, rank correlation (Spearman) "
        f"{rank:.4f}, {len(error)} subnets"
    )


if __name__ == "__main__":
    main()
