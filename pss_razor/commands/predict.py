"""Classify images with a subnet of a bundle: ``pss-predict BUNDLE IMAGE… --budget latency_cpu_us=20000``.

Needs no OpenMMLab package: torch, numpy, safetensors, and OpenCV or Pillow.
"""

import argparse
from pathlib import Path

from pss_razor.commands.command_line import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Classify images with the most accurate subnet within a budget")
    parser.add_argument("bundle", help="bundle file of pss-export --formats bundle")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument(
        "--budget", nargs="+", default=[], metavar="METRIC=VALUE", help="such as latency_cpu_us=20000 params=3"
    )
    parser.add_argument("--classes", help="text file with the name of a class in each line")
    parser.add_argument("--topk", type=int, default=5, help="number of classes to print (default: 5)")
    return parser.parse_args()


def parse_budgets(texts: list[str]) -> dict[str, float]:
    """Metric -> budget, from ``metric=value`` texts."""
    from pss_razor.core import ConfigError

    budgets = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            budgets[name] = float(value)
        except ValueError:
            raise ConfigError(f"--budget {text}: budgets are METRIC=VALUE, e.g. latency_cpu_us=20000") from None
    return budgets


def read_classes(path: str | None) -> list[str] | None:
    """The names of the classes, one in each line of a file; None without a file."""
    from pss_razor.core import ConfigError

    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--classes {path} cannot be read: {error}") from error


def main() -> None:
    """Load, choose, classify one image after another."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from pss_razor.core import ConfigError
        from pss_razor.deploy import AdaptiveModel
        from pss_razor.deploy.preprocess import load_image, preprocess

        budgets = parse_budgets(args.budget)
        classes = read_classes(args.classes)
        if args.topk < 1:
            raise ConfigError(f"--topk {args.topk}: print one class at least")
        model = AdaptiveModel.load(args.bundle)
        subnet = model.select(**budgets)
        resources = ", ".join(f"{metric} {value:g}" for metric, value in subnet.resources.items())
        accuracy = "not measured" if subnet.accuracy is None else f"{subnet.accuracy:.2f} %"
        print(f"subnet {subnet.name}: {resources}; accuracy {accuracy}; resolution {subnet.resolution}")
        for path in args.images:
            probabilities = model(preprocess(load_image(path), model.preprocessing))[0].softmax(0)
            if classes is not None and len(classes) != len(probabilities):
                raise ConfigError(
                    f"--classes {args.classes} has {len(classes)} lines, but the network {len(probabilities)} classes"
                )
            print(path)
            best = probabilities.topk(min(args.topk, len(probabilities)))
            for probability, label in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                print(f"  {probability:6.1%}  {label if classes is None else classes[label]}")
