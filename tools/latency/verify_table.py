"""Time whole subnets and compare with a table: ``python tools/latency/verify_table.py CONFIG TABLE``."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from command_line import new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("Compare a latency table's predictions with whole subnets", needs_checkpoint=False)
    parser.add_argument("table", help="latency table of tools/latency/build_table.py, measured on this machine")
    parser.add_argument("--subnets", type=int, default=30, help="how many random subnets, besides largest and smallest")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each subnet")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
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
    # Imported late: --help answers at once.
    import dataclasses

    import numpy as np
    import torch
    from scipy.stats import spearmanr

    from pss_razor.deploy import trace_static
    from pss_razor.engine.export import WithoutResize
    from pss_razor.engine.launch import build_supernet, load_config, one_line_errors
    from pss_razor.estimators import LatencyTable, latency_cost
    from pss_razor.estimators.measure import time_interleaved

    with one_line_errors():
        config = load_config(args.config, args.cfg_options, "none", args.work_dir)
        torch.set_num_threads(args.threads)
        supernet, mutator, graph = build_supernet(config)
        # The correction is what is fitted here: predictions are without it.
        table = dataclasses.replace(LatencyTable.load(args.table), correction=(1.0, 0.0))
        space = mutator.space
        generator = np.random.default_rng(args.seed)
        drawn = [space.decode(generator.integers(space.shape)) for _ in range(args.subnets)]
        subnets = [space.largest, space.smallest, *drawn]
        predicted = latency_cost(table, graph)(space.encode(subnets))
        batch = table.provenance.get("batch", 1)
        calls = []
        for subnet in subnets:
            size = subnet.get("resolution", config.model.get("input_size"))
            with mutator.active(subnet):
                net = trace_static(WithoutResize(supernet), size).to(table.device)
            images = torch.randn(batch, 3, size, size, device=table.device)
            calls.append(lambda net=net, images=images: net(images))
        with torch.inference_mode():
            measured = np.array([t.median_us for t in time_interleaved(calls, args.rounds, table.device)]) / batch
        print("latency_us measured, predicted:")
        for subnet, real, guess in zip(subnets, measured, predicted, strict=True):
            print(f"{real:10.1f} {guess:10.1f}  {subnet}")
        report("as measured", measured, predicted)
        if args.store_correction:
            fit, check = slice(0, None, 2), slice(1, None, 2)
            factor, offset_us = np.polyfit(predicted[fit], measured[fit], 1)
            report("corrected, on the other half", measured[check], factor * predicted[check] + offset_us)
            dataclasses.replace(table, correction=(float(factor), float(offset_us))).save(Path(args.table))
            print(f"stored in {args.table}: latency = {factor:.4f} * prediction + {offset_us:.1f} us")
        print(f"rank correlation (Spearman): {spearmanr(measured, predicted).statistic:.4f}")


def report(what: str, measured, predicted) -> None:
    """Print the relative error of predictions."""
    import numpy as np

    error = np.abs(predicted / measured - 1)
    print(f"error {what}: median {np.median(error):.1%}, worst {error.max():.1%} of {len(error)} subnets")


if __name__ == "__main__":
    main()
