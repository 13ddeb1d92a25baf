"""What the command lines of the tools share. Imports nothing slow, so that --help answers at once."""

import argparse
import os


def new_parser(description: str, needs_checkpoint: bool) -> argparse.ArgumentParser:
    """A parser with the config, the checkpoint where one is needed, and the options of all tools."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file")
    if needs_checkpoint:
        parser.add_argument("checkpoint", help="checkpoint of tools/train.py")
    parser.add_argument("--work-dir", help="folder for logs and results (default: work_dirs/<config name>)")
    parser.add_argument(
        "--cfg-options", nargs="+", metavar="KEY=VALUE", help="override settings, e.g. train_cfg.max_epochs=10"
    )
    return parser


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add the options by which launchers start a process."""
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help="set by old launchers")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, and tell mmengine the local rank where no launcher did."""
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(getattr(args, "local_rank", 0)))
    return args
