"""Test a model that the PSS-Net authors released, and compare with what they published:
``python tools/reproduce_released.py pss-mbv1-f CHECKPOINT``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pss_razor.commands.command_line import one_line_errors

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NEEDS = (
    "needed are the model's checkpoint and, for -g, -c and -m, its latency tables, from the release of the PSS-Net "
    "authors, and ImageNet in {train,val}/<class>/ folders (not with --resources-only)"
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Import a released model of the PSS-Net authors, test it, and print and draw each published point "
        f"beside the subnet nearest to it in resource: {NEEDS}. Called again, it takes the results that are there."
    )
    parser.add_argument("model", metavar="MODEL", help="pss-{mbv1,mbv2}-{f,g,c,m}: FLOPs, GPU, CPU latency, all three")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint of the authors' program")
    parser.add_argument(
        "--latency-table",
        nargs="+",
        action="extend",
        default=[],
        metavar="METRIC=FILE",
        help="the authors' pickled table, or one of this project, e.g. latency_gpu=FILE (default: the file that the "
        "model's config names)",
    )
    parser.add_argument("--data-root", default="data/imagenet", help="ImageNet (default: data/imagenet)")
    parser.add_argument("--resources-only", action="store_true", help="compare resources alone, without a dataset")
    parser.add_argument("--out-dir", help="folder for results and picture (default: work_dirs/MODEL)")
    parser.add_argument(
        "--cfg-options", nargs="+", metavar="KEY=VALUE", help="settings, e.g. test_dataloader.batch_size=64"
    )
    return parser.parse_args()


def parse_tables(args: argparse.Namespace, table_metrics: list[str]) -> dict[str, Path]:
    """Metric -> file of ``--latency-table``.

    Raises:
        ConfigError: The option is malformed, or the model has no use for it.
    """
    from pss_razor.core import ConfigError

    tables: dict[str, Path] = {}
    for argument in args.latency_table:
        metric, equals, file = argument.partition("=")
        if not (equals and file):
            raise ConfigError(f"--latency-table {argument}: write METRIC=FILE")
        if metric not in table_metrics:
            known = f"takes tables of {table_metrics}" if table_metrics else "needs no latency table"
            raise ConfigError(f"--latency-table {argument}: {args.model} {known}")
        if metric in tables:
            raise ConfigError(f"--latency-table {argument}: {metric} has {tables[metric]} already")
        tables[metric] = Path(file)
    return tables


def check_files(args: argparse.Namespace, config, tables: dict[str, Path]) -> None:
    """Check that checkpoint, latency tables and dataset are there.

    Raises:
        ConfigError: One is missing.
    """
    from pss_razor.core import ConfigError

    if not Path(args.checkpoint).is_file():
        raise ConfigError(f"checkpoint {args.checkpoint} does not exist; {NEEDS}")
    for metric, file in tables.items():
        if not file.is_file():
            raise ConfigError(
                f"latency table {file} does not exist; give the one of {args.model} by --latency-table {metric}=FILE; "
                f"{NEEDS}"
            )
    if args.resources_only:
        return
    for key in ("train_dataloader", "test_dataloader"):
        dataset = config[key].dataset
        folder = Path(dataset.get("data_root", ""), dataset.get("data_prefix", ""))
        if "data_root" in dataset and not folder.is_dir():
            raise ConfigError(
                f"{folder} is no folder; give ImageNet by --data-root, or compare --resources-only; {NEEDS}"
            )


def read_source(args: argparse.Namespace):
    """The authors' checkpoint.

    Raises:
        PSSError: It cannot be read, or is of another model.
    """
    from pss_razor.converters import RELEASED_MODELS, PSSNetCheckpoint
    from pss_razor.core import ConfigError

    model = RELEASED_MODELS[args.model]
    source = PSSNetCheckpoint.read(args.checkpoint)
    if source.layout.backbone != model.backbone or set(source.pools) != set(model.metrics):
        raise ConfigError(
            f"checkpoint {args.checkpoint} is of {source.layout.title} with pools for {sorted(source.pools)}, "
            f"{args.model} of {model.backbone} with pools for {sorted(model.metrics)}; {NEEDS}"
        )
    return source


def import_tables(tables: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Metric -> this project's file of a table; the authors' are converted into ``folder``."""
    from pss_razor.converters import read_pssnet_latencies
    from pss_razor.converters.released import TABLE_DEVICES
    from pss_razor.estimators import LatencyTable

    imported = {}
    for metric, file in tables.items():
        with file.open("rb") as stream:
            is_json = stream.read(1) == b"{"
        imported[metric] = file
        if not is_json:
            imported[metric] = folder / f"{metric}.json"
            provenance = dict(imported_from=f"PSS-Net: {file.name}")
            LatencyTable(read_pssnet_latencies(file), TABLE_DEVICES[metric], provenance).save(imported[metric])
    return imported


def find_results(args: argparse.Namespace, config, folder: Path) -> Path:
    """Path of the results file of this checkpoint, data and settings, which may not exist yet."""
    import hashlib

    from pss_razor.evaluation.results import RESULTS_FILE
    from pss_razor.export.record import hash_file
    from pss_razor.export.source import describe_source

    source = describe_source(Path(args.checkpoint), config, config.test_cfg.calibration_batches)
    tables = [hash_file(Path(e.table)) for e in config.model.estimators.values() if "table" in e]
    settings = repr([args.model, source, config.test_cfg, config.model.constraints, tables])
    return folder / f"evaluation_{hashlib.sha256(settings.encode()).hexdigest()[:12]}" / RESULTS_FILE


def list_subnets(config) -> dict:
    """Units, and the best subnet of every pool by score, in the form of a results file without metrics."""
    from pss_razor.engine.hooks import SubnetSamplerHook
    from pss_razor.engine.launch import build_runner
    from pss_razor.evaluation.pool_evaluator import list_candidates

    config.log_level = "WARNING"
    runner = build_runner(config)
    runner.call_hook("before_run")
    runner.load_or_resume()
    (sampler,) = (hook.sampler for hook in runner.hooks if isinstance(hook, SubnetSamplerHook))
    algorithm = runner.model
    return {
        "units": {metric: estimator.unit for metric, estimator in algorithm.estimators.items()},
        "subnets": list_candidates(algorithm, sampler, 1),
    }


def main() -> None:
    """Import, test, compare."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from pss_razor.comparison.reproduction import find_nearest, format_reproductions, make_curve
        from pss_razor.converters import RELEASED_MODELS, import_checkpoint
        from pss_razor.core import ConfigError, atomic_write, best_of_pools
        from pss_razor.engine.launch import build_runner, load_config
        from pss_razor.evaluation.results import describe_other_data, read_criterion, read_document
        from pss_razor.visualization import draw_main_result, published_curves, published_results

        model = RELEASED_MODELS.get(args.model)
        if model is None:
            raise ConfigError(f"there is no released model {args.model!r}; choose of {', '.join(RELEASED_MODELS)}")
        tables = parse_tables(args, model.table_metrics)
        folder = Path(args.out_dir or Path("work_dirs", args.model))
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"--out-dir {folder} is a file; choose another path")
        config = load_config(str(CONFIGS / model.config), args.cfg_options, "none", str(folder))
        for metric in model.table_metrics:
            tables.setdefault(metric, Path(config.model.estimators[metric].table))
        for loader in (config.train_dataloader, config.test_dataloader):
            if "data_root" in loader.dataset:
                loader.dataset.data_root = args.data_root
        check_files(args, config, tables)
        source = read_source(args)

        folder.mkdir(parents=True, exist_ok=True)
        for metric, file in import_tables(tables, folder).items():
            config.model.estimators[metric].table = str(file)
        config.model.architecture.head.num_classes = source.num_classes
        results = find_results(args, config, folder)
        if args.resources_only or not results.is_file():
            config.load_from, config.resume = str(folder / "imported.pth"), False
            print(*import_checkpoint(source, config, config.load_from), sep="\n")
        if args.resources_only:
            document = list_subnets(config)
            subnets, accuracy = document["subnets"], None
        else:
            if results.is_file():
                print(f"results of an earlier run: {results}")
            else:
                config.test_cfg.out_file = str(results)
                build_runner(config).test()
            document = read_document(results)
            criterion = read_criterion(document)
            subnets, accuracy = best_of_pools(document["subnets"], criterion), criterion.metric

        supernet = args.model.upper()
        published = {curve.metric: curve for curve in published_results(supernet)}
        units = document["units"]
        texts = [
            format_reproductions(metric, find_nearest(curve, subnets, units, accuracy))
            for metric, curve in published.items()
        ]
        print("", f"{supernet}: published, and the nearest subnet of {args.checkpoint}", sep="\n")
        print(*texts, sep="\n\n")
        if args.resources_only:
            return
        dataset = describe_other_data(document)
        if dataset is not None:
            print(f"accuracies here are of {dataset}; the published ones are of ImageNet")
        curves = [curve for curve in published_curves() if curve.label == supernet]
        own = [make_curve(subnets, units, metric, accuracy, curve, dataset) for metric, curve in published.items()]
        picture = folder / "reproduction.png"
        atomic_write(picture, draw_main_result([*curves, *own], compact=True))
        print(f"picture: {picture}")


if __name__ == "__main__":
    main()
