"""Whether pools find good subnets: ``python tools/diagnose_pools.py RUN`` or ``CONFIG CHECKPOINT``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pss_razor.commands.command_line import new_parser, one_line_errors, parse

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        "Measure members of every pool beside fresh draws for the same targets: does the score rank them, and is what "
        "it chooses better?",
        needs_checkpoint=False,
    )
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="checkpoint of a training; without one, `config` is the work dir of a training, of which the config in it "
        "and the newest checkpoint are taken",
    )
    parser.add_argument("--out", help="folder for diagnosis.json, .md and .png (default: <work dir>/diagnosis)")
    parser.add_argument("--members", type=int, default=20, help="most members of each pool (default: 20)")
    parser.add_argument("--fresh", type=int, default=20, help="most fresh draws for each target (default: 20)")
    parser.add_argument("--images", type=int, metavar="N", help="only N images, evenly spread (default: all)")
    parser.add_argument(
        "--on", choices=["test", "selection"], default="test", help="which images to measure on (default: test)"
    )
    return parse(parser)


def find_run(folder: Path) -> tuple[Path, Path]:
    """Config and newest checkpoint in the work dir of a training."""
    from pss_razor.checkpoints.checkpoint import find_latest_checkpoint
    from pss_razor.core import ConfigError

    if not folder.is_dir():
        raise ConfigError(f"{folder} is not the work dir of a training; give one, or CONFIG CHECKPOINT")
    configs, checkpoint = sorted(folder.glob("*.py")), find_latest_checkpoint(folder)
    if len(configs) != 1:
        names = ", ".join(path.name for path in configs) or "none"
        raise ConfigError(f"{folder} has not one config but {names}; give CONFIG CHECKPOINT")
    if checkpoint is None:
        raise ConfigError(f"{folder} has no checkpoint epoch_N.pth or iter_N.pth; give CONFIG CHECKPOINT")
    return configs[0], checkpoint


def take_images(dataloader: DataLoader, count: int) -> DataLoader:
    """A data loader of ``count`` images of another, evenly spread, since some data sets are sorted by class."""
    from torch.utils.data import DataLoader, Subset

    total = len(dataloader.dataset)  # type: ignore[arg-type]
    count = min(count, total)
    return DataLoader(
        Subset(dataloader.dataset, [(2 * index + 1) * total // (2 * count) for index in range(count)]),
        batch_size=dataloader.batch_size,
        num_workers=dataloader.num_workers,
        collate_fn=dataloader.collate_fn,
    )


def main() -> None:
    """Load, measure, write."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from pss_razor.checkpoints.checkpoint import read_checkpoint
        from pss_razor.comparison.pool_diagnosis import diagnose_pools, draw_pools, format_diagnosis
        from pss_razor.core import ConfigError, atomic_write
        from pss_razor.engine.launch import build_runner, load_config
        from pss_razor.evaluation.cross_entropy import CrossEntropy
        from pss_razor.evaluation.one_pass import outside_test_loop
        from pss_razor.evaluation.results import describe_images

        from mmengine.evaluator import Evaluator

        if args.images is not None and args.images < 1:
            raise ConfigError(f"--images {args.images} must be at least 1")
        if args.members < 2 or args.fresh < 1:
            raise ConfigError(f"--members {args.members} must be at least 2, --fresh {args.fresh} at least 1")
        config_file, checkpoint = (
            find_run(Path(args.config)) if args.checkpoint is None else (args.config, Path(args.checkpoint))
        )
        out = Path(args.out or Path(args.work_dir or checkpoint.parent) / "diagnosis")
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file; choose another path")
        config = load_config(str(config_file), args.cfg_options, "none", args.work_dir or str(out))
        read_checkpoint(checkpoint, needs_pools=True)
        config.load_from, config.resume = str(checkpoint), False
        runner = build_runner(config)
        runner.call_hook("before_run")
        runner.load_or_resume()
        loop: Any = runner.test_loop
        evaluator = loop.build_evaluator_of_pools()
        if args.on == "selection" and loop.selection_dataloader is None:
            raise ConfigError("--on selection: the config has no test_cfg.selection_dataloader")
        dataloader, metrics = (
            (loop.dataloader, loop.evaluator)
            if args.on == "test"
            else (loop.selection_dataloader, loop.selection_evaluator)
        )
        if args.images is not None:
            dataloader = take_images(dataloader, args.images)
        if not any(isinstance(metric, CrossEntropy) for metric in metrics.metrics):
            dataset_meta, metrics = metrics.dataset_meta, Evaluator([*metrics.metrics, CrossEntropy()])
            metrics.dataset_meta = dataset_meta
        with outside_test_loop(runner):
            diagnosis = diagnose_pools(
                evaluator,
                lambda subnets: evaluator.evaluate(subnets, dataloader, metrics, runner, "test"),
                loop.criterion,
                len(dataloader.dataset),
                args.members,
                args.fresh,
            )
        measured_on = describe_images(dataloader.dataset)
        diagnosis = {**diagnosis, "checkpoint": str(checkpoint), "measured_on": measured_on}
        heading = f"# Pools of {checkpoint}\n\nMeasured on {measured_on}, BN calibrated.\n\n"
        contents = {
            "diagnosis.json": json.dumps(diagnosis, indent=1).encode(),
            "diagnosis.md": (heading + format_diagnosis(diagnosis)).encode(),
            "diagnosis.png": draw_pools(diagnosis),
        }
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            atomic_write(out / name, content)
        print(format_diagnosis(diagnosis))
        print(f"written: {', '.join(str(out / name) for name in contents)}")


if __name__ == "__main__":
    main()
