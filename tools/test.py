"""Evaluate the best subnets of every pool: ``python tools/test.py CONFIG CHECKPOINT``."""

import argparse
import os


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Evaluate the best subnets of every pool of a trained supernet")
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint of tools/train.py")
    parser.add_argument("--work-dir", help="folder for logs and results (default: work_dirs/<config name>)")
    parser.add_argument("--out", help="results file, .json (default: <work dir>/pool_results.json)")
    parser.add_argument("--amp", action="store_true", help="evaluate in mixed precision")
    parser.add_argument(
        "--cfg-options", nargs="+", metavar="KEY=VALUE", help="override settings, e.g. test_cfg.top_k=1"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help="set by old launchers")
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> None:
    """Build the runner and test."""
    args = parse_args()
    # Imported late: --help answers at once.
    from pss_razor.core import ConfigError
    from pss_razor.engine.checkpoint import read_checkpoint
    from pss_razor.engine.launch import build_runner, load_config, one_line_errors

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


if __name__ == "__main__":
    main()
