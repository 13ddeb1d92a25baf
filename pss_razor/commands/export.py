"""Export the best subnet of every pool: ``pss-export CONFIG CHECKPOINT --out-dir DIR``, or tools/export_subnets.py."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pss_razor.commands.command_line import keep_imports, new_parser, one_line_errors, parse

if TYPE_CHECKING:
    from pss_razor.core import EvaluatedSubnet
    from pss_razor.evaluation.pool_evaluator import PoolEvaluator

    from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("Export the best subnet of every pool as a static network", needs_checkpoint=True)
    parser.add_argument("--out-dir", required=True, help="folder for the networks and manifest.json")
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="METRIC=TARGET,…",
        help="which pools, e.g. flops=100,200 latency_cpu=20000 (default: all)",
    )
    parser.add_argument(
        "--formats", default="torch", help="of torch, pt2, onnx, bundle, with commas between them (default: torch)"
    )
    parser.add_argument(
        "--onnx-input",
        choices=["own", "full"],
        default="own",
        help="images that .onnx and .pt2 files take: of the subnet's own resolution, or of the full one, with the "
        "resize in the graph (default: own)",
    )
    parser.add_argument(
        "--calibrate", type=int, metavar="N_BATCHES", help="batches that calibrate BN (default: the config's)"
    )
    parser.add_argument(
        "--jobs", type=int, help="processes that write networks at once, each with one CPU thread (default: all cores)"
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--results", help="results file of pss-test for this checkpoint; without it the pools are evaluated first"
    )
    choice.add_argument(
        "--no-evaluate", action="store_true", help="choose by the scores of the training, evaluate nothing"
    )
    return parse(parser)


def main() -> None:
    """Evaluate where needed, choose, export."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from pss_razor.checkpoints.checkpoint import read_checkpoint
        from pss_razor.core import ConfigError, usable_cores
        from pss_razor.engine.launch import build_runner, load_config
        from pss_razor.evaluation.results import format_table, read_results
        from pss_razor.export.accuracy import measure_networks
        from pss_razor.export.choice import check_results, choose_pools, choose_subnets
        from pss_razor.export.exporter import check_bundle_accuracies, export_subnets
        from pss_razor.export.formats import BUNDLE, parse_formats
        from pss_razor.export.source import describe_source

        formats = parse_formats(args.formats)
        if args.no_evaluate and BUNDLE in formats:
            raise ConfigError("--no-evaluate: a bundle chooses among its subnets by accuracy; leave one of them out")
        if args.calibrate is not None and args.calibrate < 1:
            raise ConfigError(f"--calibrate {args.calibrate}: give at least 1 batch")
        if args.jobs is not None and args.jobs < 1:
            raise ConfigError(f"--jobs {args.jobs} must be at least 1")
        config = load_config(args.config, args.cfg_options, "none", args.work_dir)
        read_checkpoint(args.checkpoint, needs_pools=True)
        out_dir = Path(args.out_dir)
        if out_dir.exists() and not out_dir.is_dir():
            raise ConfigError(f"--out-dir {args.out_dir} is a file; choose another path")
        config.load_from = args.checkpoint
        config.resume = False
        if args.calibrate is not None:
            config.test_cfg.calibration_batches = args.calibrate
        keep_imports()
        runner = build_runner(config)
        runner.call_hook("before_run")
        runner.load_or_resume()
        evaluator = runner.test_loop.build_evaluator_of_pools()
        pools = choose_pools(args.targets, evaluator.sampler.candidates(1))
        source = describe_source(Path(args.checkpoint), config, evaluator.calibration_batches)
        results = []
        if args.results is not None:
            results = read_results(Path(args.results), runner.model.space)
            check_results(results, evaluator, Path(args.results))
        elif not args.no_evaluate:
            results = evaluate_once(runner, evaluator, pools, source, out_dir)
        criterion = runner.test_loop.criterion
        chosen = choose_subnets(evaluator, pools, results, criterion)
        check_bundle_accuracies(chosen, formats)
        entries = export_subnets(
            evaluator,
            chosen,
            runner.test_dataloader,
            out_dir,
            formats,
            args.onnx_input,
            source,
            criterion,
            lambda networks: measure_networks(runner, evaluator, networks),
            jobs=args.jobs or usable_cores(),
        )
        if measured := [own for own in chosen if own.metrics is not None]:
            print(format_table(measured, runner.model.estimators))
            differences = [abs(e["accuracy"] - e["supernet_accuracy"]) for e in entries if e["accuracy"] is not None]
            print(
                f"the exported networks were measured too: their {criterion.metric} differs from the table's by "
                f"{max(differences):.3g} at most (manifest.json has both)"
            )
        print(f"exported {len(chosen)} subnets to {args.out_dir} (manifest.json lists them)")


def evaluate_once(
    runner: Runner, evaluator: PoolEvaluator, pools: list[tuple[str, float]], source: dict[str, Any], out_dir: Path
) -> list[EvaluatedSubnet]:
    """Evaluate pools, or read what an earlier run found for the same source."""
    import hashlib

    from pss_razor.evaluation.results import read_results, write_results
    from pss_razor.export.choice import evaluate_pools

    settings = repr([source, runner.test_loop.top_k, pools])
    path = out_dir / f"evaluation_{hashlib.sha256(settings.encode()).hexdigest()[:12]}" / "pool_results.json"
    if path.is_file():
        return read_results(path, runner.model.space)
    evaluated = evaluate_pools(runner, evaluator, pools)
    write_results(runner.test_loop, evaluated, path)
    return evaluated
