"""Export the best subnet of every pool: ``python tools/export_subnets.py CONFIG CHECKPOINT --out-dir DIR``."""

import argparse
from pathlib import Path

from command_line import new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("Export the best subnet of every pool as a static network", needs_checkpoint=True)
    parser.add_argument("--out-dir", required=True, help="folder for the networks and manifest.json")
    parser.add_argument(
        "--results", help="results file of tools/test.py for this checkpoint; without it the pools are evaluated first"
    )
    return parse(parser)


def main() -> None:
    """Evaluate where needed, choose, export."""
    args = parse_args()
    # Imported late: --help answers at once.
    from pss_razor.core import ConfigError
    from pss_razor.engine.checkpoint import read_checkpoint
    from pss_razor.engine.export import export_subnets
    from pss_razor.engine.launch import build_runner, load_config, one_line_errors
    from pss_razor.engine.results import best_of_pools, format_table, read_results

    with one_line_errors():
        config = load_config(args.config, args.cfg_options, "none", args.work_dir)
        read_checkpoint(args.checkpoint, needs_pools=True)
        if Path(args.out_dir).exists() and not Path(args.out_dir).is_dir():
            raise ConfigError(f"--out-dir {args.out_dir} is a file; choose another path")
        config.load_from = args.checkpoint
        config.resume = False
        runner = build_runner(config)
        if args.results is None:
            runner.test()
            records = runner.test_loop.results
        else:
            records = read_results(Path(args.results), runner.model.space)
            runner.call_hook("before_run")
            runner.load_or_resume()
        chosen = [record for record in best_of_pools(records) if record["metric"] is not None]
        evaluator = runner.test_loop.build_evaluator_of_pools()
        batch = next(iter(runner.test_dataloader))
        export_subnets(evaluator, chosen, batch, Path(args.out_dir))
        print(format_table(best_of_pools(records), runner.model.estimators))
        print(f"exported {len(chosen)} subnets to {args.out_dir} (manifest.json lists them)")


if __name__ == "__main__":
    main()
