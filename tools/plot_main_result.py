"""Draw top-1 against FLOPs and latencies: ``python tools/plot_main_result.py --results LABEL=FILE --out FILE.png``."""

import argparse
from pathlib import Path

from pss_razor.commands.command_line import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Draw top-1 against FLOPs, GPU and CPU latency, a row a backbone, from results of tools/test.py"
    )
    parser.add_argument(
        "--results",
        nargs="+",
        action="extend",
        default=[],
        metavar="[BACKBONE:]LABEL=FILE",
        help="results file of tools/test.py, e.g. PSS-F=work_dirs/pss_mbv2_flops/pool_results.json; BACKBONE (mbv1, "
        "mbv2, r50) is needed for files that do not name it",
    )
    parser.add_argument(
        "--published",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="overlay all points of the paper's figure; results on other data than ImageNet get axes of their own",
    )
    parser.add_argument("--out", required=True, help="picture, .png")
    return parser.parse_args()


def read_curves(argument: str) -> list:
    """The curves of one ``[BACKBONE:]LABEL=FILE``: the best subnet of every target, for each metric that is drawn.

    Raises:
        ConfigError: The argument or the file is malformed, or says nothing of its backbone.
    """
    from pss_razor.core import ConfigError, best_of_pools
    from pss_razor.evaluation.results import describe_other_data, read_criterion, read_document
    from pss_razor.visualization import Curve
    from pss_razor.visualization.main_result import BACKBONES, PANELS

    name, equals, file = argument.partition("=")
    backbone, colon, label = name.rpartition(":")
    if not (equals and label and file):
        raise ConfigError(f"--results {argument}: write LABEL=FILE.json")
    if colon and backbone not in BACKBONES:
        raise ConfigError(f"--results {argument}: the backbone {backbone!r} is none of {list(BACKBONES)}")
    document = read_document(Path(file))
    if not colon:
        if "model" not in document:
            raise ConfigError(
                f"results file {file} is of an older version and does not name its backbone; say which, e.g. "
                f"--results mbv2:{argument}"
            )
        known = {kind: key for key, (_, kind) in BACKBONES.items()}
        if document["model"] not in known:
            raise ConfigError(
                f"results file {file} is of the backbone {document['model']!r}; there are rows for {sorted(known)}; "
                f"to draw it in one of them: --results mbv2:{argument}"
            )
        backbone = known[document["model"]]
    criterion = read_criterion(document)
    best = [own for own in best_of_pools(document["subnets"], criterion) if own.metric in PANELS]
    if not best:
        raise ConfigError(f"results file {file} has no pools of {list(PANELS)}: there is no panel for it")
    points: dict[str, list] = {}
    for own in best:
        points.setdefault(own.metric, []).append((own.resources[own.metric], own.measured[criterion.metric]))
    dataset = describe_other_data(document)
    return [
        Curve(backbone, metric, label, document["units"][metric], tuple(values), dataset=dataset)
        for metric, values in points.items()
    ]


def main() -> None:
    """Read and draw."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from pss_razor.core import ConfigError, atomic_write
        from pss_razor.visualization import draw_main_result, published_curves

        out = Path(args.out)
        if out.suffix != ".png" or out.is_dir():
            raise ConfigError(f"--out {out}: the picture is a PNG file; end the name with .png")
        curves = [curve for argument in args.results for curve in read_curves(argument)]
        image = draw_main_result([*(published_curves() if args.published else []), *curves])
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, image)
        print(f"written: {out}")


if __name__ == "__main__":
    main()
