"""What command lines share. Imports nothing slow, so that --help answers at once."""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import os
import re
import sys
import traceback
from collections.abc import Iterator


def new_parser(description: str, needs_checkpoint: bool) -> argparse.ArgumentParser:
    """A parser with the config, the checkpoint where one is needed, and the options of all tools."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file, or the name of a shipped one, such as pss_mbv2_flops_digits")
    if needs_checkpoint:
        parser.add_argument("checkpoint", help="checkpoint of a training")
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
    """Parse, and set ``LOCAL_RANK`` for mmengine unless a launcher did."""
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(getattr(args, "local_rank", 0)))
    return args


@functools.cache  # in tests, many commands run in one process, and what they leave is garbage
def keep_imports() -> None:
    """Take what is imported out of garbage collection, which looks at all of it: 0.3 s for each dataset of mmengine."""
    gc.freeze()


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line for an error that a user can act on; others keep their traceback.

    These are ``PSSError``, a path that cannot be written, and a mistake in a config that shows only when mmengine
    builds an object (an unknown type, an argument too many), raised by its registry or by a constructor.
    """
    from pss_razor.core import PSSError

    try:
        yield
    except PSSError as error:
        sys.exit(f"error: {error}")
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        sys.exit(f"error: {error.filename}: {error.strerror}; choose another path")
    except (KeyError, TypeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        files = [frame.filename.replace("\\", "/") for frame in frames]
        # The runner builds mmengine's own loops without a registry.
        building = any(
            "mmengine/registry/" in file or ("mmengine/runner/" in file and frame.name.startswith("build_"))
            for file, frame in zip(files, frames, strict=True)
        )
        wrong_argument = re.search(r"__init__\(\) (got an unexpected keyword|missing \d+ required)", str(error))
        if "mmengine/registry/" not in files[-1] and not (building and wrong_argument):
            raise
        sys.exit(f"error: the config asks for something that cannot be built: {error.args[0]}")
