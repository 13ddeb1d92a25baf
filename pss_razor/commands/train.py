"""Train a supernet, or a single network: ``pss-train CONFIG``, or ``python tools/train.py CONFIG``."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from pss_razor.commands.command_line import add_launcher, keep_imports, new_parser, one_line_errors, parse

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("Train a supernet, or a single network", needs_checkpoint=False)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="resume from this checkpoint; without a path, or with 'auto', from the newest in the work dir, if any",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision: float16 on a GPU, bfloat16 on a CPU")
    parser.add_argument("--no-validate", action="store_true", help="do not evaluate during training")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the total batch size over auto_scale_lr.base_batch_size",
    )
    parser.add_argument("--print-config", action="store_true", help="print the config with all that it inherits; stop")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build and check everything, training and test, make some steps, print search space, resources, targets, "
        "memory and time of a step (of a search, of a candidate's evaluation); stop, and leave nothing",
    )
    add_launcher(parser)
    return parse(parser)


def main() -> None:
    """Build the runner and train."""
    args = parse_args()
    with one_line_errors(), contextlib.ExitStack() as stack:
        # Imported late: --help answers at once.
        import tempfile

        import torch

        from pss_razor.checkpoints.checkpoint import find_latest_checkpoint, read_checkpoint
        from pss_razor.core import ConfigError
        from pss_razor.engine.launch import close_process_group, load_config
        from pss_razor.evaluation.checks import has_sampler_state

        config = load_config(args.config, args.cfg_options, args.launcher, args.work_dir)
        if args.no_validate:
            config.val_cfg = config.val_dataloader = config.val_evaluator = None
        if args.amp:
            kind = config.optim_wrapper.get("type", "OptimWrapper")
            if kind not in ("OptimWrapper", "AmpOptimWrapper", "CPUAmpOptimWrapper"):
                raise ConfigError(f"--amp does not know optim_wrapper.type = {kind!r}; remove one of the two")
            config.optim_wrapper.type = "AmpOptimWrapper" if torch.cuda.is_available() else "CPUAmpOptimWrapper"
        if args.auto_scale_lr:
            if config.get("auto_scale_lr", {}).get("base_batch_size") is None:
                raise ConfigError("--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=…) in the config")
            config.auto_scale_lr.enable = True
        if args.resume is not None and "resume_from" in config.train_cfg:
            config.train_cfg.resume_from = args.resume  # a search: load_from stays its supernet
        elif args.resume is not None:
            found = find_latest_checkpoint(config.work_dir) if args.resume == "auto" else Path(args.resume)
            config.resume = found is not None
            if found is not None:  # else a load_from of the config stays
                config.load_from = str(found)
        if config.get("load_from"):
            read_checkpoint(config.load_from, needs_pools=bool(config.get("resume")) and has_sampler_state(config))
        if args.print_config:
            print(config.pretty_text)
            return
        if args.dry_run:
            config.work_dir = stack.enter_context(tempfile.TemporaryDirectory())
        _train(config, args.dry_run)
        close_process_group()


def _train(config: "Config", dry: bool) -> None:
    """Build the runner, check what a training would only find later, and train, or with ``dry`` report."""
    from pss_razor.engine.dry_run import dry_run
    from pss_razor.engine.launch import build_runner
    from pss_razor.evaluation.checks import check_dataloader, check_loop_settings, get_model, has_sampler_state
    from pss_razor.evaluation.evaluation_check import check_evaluation

    from mmengine.dist import is_main_process

    check_loop_settings(config)
    keep_imports()
    runner = build_runner(config)
    # Before mmengine builds its schedulers, which assert that an epoch has iterations.
    check_dataloader(get_model(runner), runner.train_dataloader, "train_dataloader")
    validation = runner.val_loop  # pools check theirs when it is built
    if validation is not None and not has_sampler_state(config):
        check_evaluation(get_model(runner), validation.dataloader, validation.evaluator, "val_dataloader")
    if dry:
        report = dry_run(runner)
        if is_main_process():
            print(f"\n{report}\n\ndry run: everything was built, nothing was written")
    else:
        runner.train()
