"""Train methods on the same budget, data and seeds: ``python tools/compare_samplers.py CONFIG… --out-dir DIR``."""

import argparse
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from pss_razor.commands.command_line import one_line_errors
from pss_razor.commands.runs import Runs, check_options, is_complete, keep_settings, stopped_at_the_end

TOOLS = Path(__file__).resolve().parent
_POLL_SECONDS = 2.0


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train methods on the same budget, data and seeds, and draw accuracy against resource for all"
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="a config for each method")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="default: 0 1 2 3 4")
    parser.add_argument(
        "--out-dir", required=True, help="folder for runs and the comparison; an interrupted comparison continues"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; above 1 each has one CPU thread")
    parser.add_argument(
        "--equal-macs",
        action="store_true",
        help="train the other methods for as many whole epochs as cost what the first one costs, in expected "
        "multiply-accumulates; without it all train for as many epochs",
    )
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all configs")
    return parser.parse_args()


def main() -> None:
    """Check, run what is not there yet, and put the results together."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from tqdm import tqdm

        from pss_razor.checkpoints.checkpoint import find_latest_checkpoint
        from pss_razor.comparison.expected_cost import equal_cost_epochs
        from pss_razor.comparison.summary import check_comparable, name_methods, summarise, write_comparison
        from pss_razor.config import set_epochs
        from pss_razor.core import ConfigError
        from pss_razor.engine.launch import load_config
        from pss_razor.evaluation.results import RESULTS_FILE

        out_dir = Path(args.out_dir)
        check_options(out_dir, args.jobs)
        for seed in args.seeds:
            if args.seeds.count(seed) > 1 or seed < 0:
                raise ConfigError(
                    f"--seeds {args.seeds}: {seed} is negative or given twice; give distinct seeds from 0"
                )
        if any(option.startswith("randomness.seed=") for option in args.cfg_options):
            raise ConfigError("--cfg-options randomness.seed: give the seeds by --seeds")
        names = name_methods(args.configs)
        configs = {
            name: load_config(file, args.cfg_options, "none", None)
            for name, file in zip(names, args.configs, strict=True)
        }
        check_comparable(configs)
        if args.equal_macs:
            for name, epochs in equal_cost_epochs(configs).items():
                set_epochs(configs[name], epochs)

        folders = {name: out_dir / Path(file).stem for name, file in zip(names, args.configs, strict=True)}
        for name, config in configs.items():
            keep_settings(folders[name], config, name)

        files = dict(zip(names, args.configs, strict=True))
        if args.equal_macs:
            files = {name: str(folders[name] / "config.py") for name in names}
            for name, config in configs.items():
                config.dump(files[name])
        # Seeds in the outer loop, so that an interrupted comparison has all methods for some seeds.
        work_dirs = {(name, seed): folders[name] / f"seed{seed}" for seed in args.seeds for name in names}
        missing = {key: work_dir for key, work_dir in work_dirs.items() if not is_complete(work_dir)}
        unit = "epoch" if "max_epochs" in configs[names[0]].train_cfg else "iter"
        lengths = {name: int(config.train_cfg[f"max_{unit}s"]) for name, config in configs.items()}

        def progress() -> int:
            """Epochs (or iterations) in the newest checkpoints of the missing runs."""
            newest = {key: find_latest_checkpoint(work_dir) for key, work_dir in missing.items()}
            return sum(min(lengths[n], int(path.stem.split("_")[1])) for (n, _), path in newest.items() if path)

        # The files of equal costs have the options in them, and their own number of epochs.
        runs = Runs(TOOLS, [] if args.equal_macs else args.cfg_options, args.jobs)
        executor = ThreadPoolExecutor(args.jobs)
        total = sum(lengths[name] for name, _ in missing)
        with (
            stopped_at_the_end(runs, executor),
            tqdm(total=total, initial=progress(), unit=unit, desc=f"{len(missing)} runs") as bar,
        ):
            waiting = {
                executor.submit(runs.run, files[name], seed, work_dir) for (name, seed), work_dir in missing.items()
            }
            while waiting:
                done, waiting = wait(waiting, _POLL_SECONDS, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                bar.update(progress() - bar.n)

        summary = summarise({n: {s: work_dirs[n, s] / RESULTS_FILE for s in args.seeds} for n in names})
        summary[f"{unit}s"] = lengths
        seeds = " ".join(map(str, args.seeds))
        own_lengths = ", ".join(f"{name} {length}" for name, length in lengths.items())
        length = f"{own_lengths} {unit}s, of equal cost" if args.equal_macs else f"{lengths[names[0]]} {unit}s each"
        heading = (
            f"{summary['accuracy'].removeprefix('accuracy/')}, mean ± standard error over the seeds {seeds}; "
            f"{length}; the best of up to {configs[names[0]].test_cfg.get('top_k', 5)} subnets of each "
            f"target, chosen on {summary['selected_on']}, measured on {summary['measured_on']}"
        )
        for file in write_comparison(summary, out_dir, heading):
            print(f"written: {file}")


if __name__ == "__main__":
    main()
