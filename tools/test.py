"""Evaluate the best subnets of every pool: ``python tools/test.py CONFIG CHECKPOINT``."""

import argparse

from command_line import add_launcher, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("Evaluate the best subnets of every pool of a trained supernet", needs_checkpoint=True)
    parser.add_argument("--out", help="results file, .json (default: <work dir>/pool_results.json)")
    parser.add_argument("--amp", action="store_true", help="evaluate in mixed precision")
    add_launcher(parser)
    return parse(parser)


def main() -> None:
    """Build the runner and test."""
    args = parse_args()
    # Imported late: --help answers at once.
    from pss_razor.core import ConfigError
    from pss_razor.engine.checkpoint import read_checkpoint
    from pss_razor.engine.launch import build_runner, close_process_group, load_config, one_line_errors

    with one_line_errors():
        config = load_config(args.config, args.cfg_options, args.launcher, args.work_dir)
        read_checkpoint(args.checkpoint, needs_pools=True)
        config.load_from = args.checkpoint
        config.resume = False
        if args.amp:
            config.test_cfg.fp16 = True
        if args.out is not None:
            if not args.out.endswith(".json"):
                raise ConfigError(f"--out {args.out}: results are JSON; end the name with .json")
            config.test_cfg.out_file = args.out
        build_runner(config).test()
        close_process_group()


if __name__ == "__main__":
    main()
