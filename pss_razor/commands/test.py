"""Evaluate the best subnets of every pool, or a single network: ``pss-test CONFIG CHECKPOINT``, or tools/test.py."""

import argparse
import json
from typing import TYPE_CHECKING

from pss_razor.commands.command_line import add_launcher, keep_imports, new_parser, one_line_errors, parse

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        "Evaluate the best subnets of every pool of a trained supernet, or a single network", needs_checkpoint=True
    )
    parser.add_argument("--out", help="results file, .json (default, of pools: <work dir>/pool_results.json)")
    parser.add_argument("--amp", action="store_true", help="evaluate in mixed precision")
    add_launcher(parser)
    return parse(parser)


def main() -> None:
    """Build the runner and test."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from pss_razor.core import ConfigError
        from pss_razor.engine.launch import close_process_group, load_config
        from pss_razor.evaluation.checks import has_sampler_state

        config = load_config(args.config, args.cfg_options, args.launcher, args.work_dir)
        pools = has_sampler_state(config)
        # 'none', as in MMRazor: no checkpoint but the one that the model's init_cfg names.
        config.load_from = None if args.checkpoint == "none" and not pools else args.checkpoint
        config.resume = False
        if args.amp:
            config.test_cfg.fp16 = True
        if args.out is not None:
            if not args.out.endswith(".json"):
                raise ConfigError(f"--out {args.out}: results are JSON; end the name with .json")
            if pools:
                config.test_cfg.out_file = args.out
        _test(config, args.out)
        close_process_group()


def _test(config: "Config", out_file: str | None) -> None:
    """Build the runner, check what it is given, and test; write one network's metrics to ``out_file``."""
    from pss_razor.checkpoints.checkpoint import check_state_dict, read_checkpoint
    from pss_razor.core import ConfigError, atomic_write
    from pss_razor.engine.launch import build_runner
    from pss_razor.evaluation.checks import get_model, has_sampler_state
    from pss_razor.evaluation.evaluation_check import check_evaluation

    from mmengine.dist import is_main_process

    pools = has_sampler_state(config)
    checkpoint = read_checkpoint(config.load_from, needs_pools=pools) if config.load_from else None
    keep_imports()
    runner = build_runner(config)
    if checkpoint is None and "init_cfg" in config.model and not (config.model.init_cfg or {}).get("checkpoint"):
        raise ConfigError("there are no weights to test; give a checkpoint, or set model.init_cfg.checkpoint to it")
    if not pools:  # for pools, the sampler hook and the test loop check the same
        if checkpoint is not None:
            check_state_dict(get_model(runner), checkpoint["state_dict"])
        loop = runner.test_loop
        check_evaluation(get_model(runner), loop.dataloader, loop.evaluator, "test_dataloader")
    metrics = runner.test()
    if out_file is not None and not pools and is_main_process():
        atomic_write(out_file, json.dumps(metrics, indent=2).encode())
