"""Train subnets of a results file alone: ``python tools/train_alone.py RESULTS CONFIG --out-dir DIR``."""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pss_razor.commands.command_line import one_line_errors
from pss_razor.commands.runs import Runs, check_options, is_complete, keep_settings, stopped_at_the_end

TOOLS = Path(__file__).resolve().parent


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train the subnets that a run has picked alone, each as a network of its own, and compare; "
        "DIR/alone.json has accuracy, resources and cost of each"
    )
    parser.add_argument("results", metavar="RESULTS", help="pool_results.json of a supernet's test")
    parser.add_argument("config", metavar="CONFIG", help="a config whose model is a SubnetAlone of the same space")
    parser.add_argument(
        "--out-dir", required=True, help="folder for runs and alone.json; what was interrupted continues"
    )
    parser.add_argument(
        "--pools", nargs="+", metavar="NAME", help="as in RESULTS: flops_1.635 largest … (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all trainings (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; above 1 each has one CPU thread")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all trainings")
    return parser.parse_args()


def main() -> None:
    """Check, train what is not there yet, and put the results together."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from tqdm import tqdm

        from pss_razor.core import ConfigError, atomic_write, best_of_pools
        from pss_razor.engine.launch import load_config
        from pss_razor.evaluation.results import RESULTS_FILE, read_criterion, read_document

        out_dir = Path(args.out_dir)
        check_options(out_dir, args.jobs)
        if args.seed < 0:
            raise ConfigError(f"--seed {args.seed} must be at least 0")
        if any(option.startswith(("randomness.seed=", "model.subnet")) for option in args.cfg_options):
            raise ConfigError("--cfg-options: give the seed by --seed, and the subnets by --pools")
        document = read_document(Path(args.results))
        criterion = read_criterion(document)
        picks = {own.name: own for own in best_of_pools(document["subnets"], criterion)}
        names = args.pools or list(picks)
        for name in names:
            if name not in picks:
                raise ConfigError(f"--pools {name}: {args.results} has {', '.join(picks)}")
        # A subnet can be the pick of several pools; it is trained once.
        trained_as = {
            name: next(other for other in names if picks[other].subnet == picks[name].subnet) for name in names
        }

        work_dirs = {}
        for name in dict.fromkeys(trained_as.values()):
            config = load_config(args.config, args.cfg_options, "none", None)
            if str(config.model.get("type")).rpartition(".")[2] != "SubnetAlone":
                raise ConfigError(f"{args.config}: its model is a {config.model.get('type')}; it must be a SubnetAlone")
            config.model.pop("subnet", None)
            config.model.subnet = dict(picks[name].subnet)
            keep_settings(out_dir / name, config, name)
            config.dump(out_dir / name / "config.py")
            work_dirs[name] = out_dir / name / f"seed{args.seed}"

        missing = {name: work_dir for name, work_dir in work_dirs.items() if not is_complete(work_dir)}
        runs, executor = Runs(TOOLS, args.cfg_options, args.jobs), ThreadPoolExecutor(args.jobs)
        with stopped_at_the_end(runs, executor), tqdm(total=len(missing), unit="run") as bar:
            waiting = [
                executor.submit(runs.run, str(out_dir / name / "config.py"), args.seed, work_dir)
                for name, work_dir in missing.items()
            ]
            for future in as_completed(waiting):
                future.result()
                bar.update()

        subnets = []
        for name in names:
            own = read_document(work_dirs[trained_as[name]] / RESULTS_FILE)
            alone = own["subnets"][0]  # the largest of a space of one
            subnets.append(
                {
                    "name": name,
                    "choices": dict(picks[name].subnet),
                    "resources": dict(alone.resources),
                    "alone": alone.measured[criterion.name],
                    "in_supernet": picks[name].measured[criterion.name],
                    "training": own.get("training"),
                }
            )
        summary = {
            "format": 1,
            "results": str(args.results),
            "config": str(args.config),
            "seed": args.seed,
            "accuracy": criterion.name,
            "measured_on": document.get("measured_on"),
            "supernet_training": document.get("training"),
            "subnets": subnets,
        }
        atomic_write(out_dir / "alone.json", json.dumps(summary, indent=1).encode())
        for own in subnets:
            print(f"{own['name']:>16}  alone {own['alone']:.2f}  in the supernet {own['in_supernet']:.2f}")
        print(f"written: {out_dir / 'alone.json'}")


if __name__ == "__main__":
    main()
