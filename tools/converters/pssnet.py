"""Import files of the PSS-Net authors' program: ``python tools/converters/pssnet.py {checkpoint,latency-table} …``.

A checkpoint becomes one for tools/test.py and tools/export_subnets.py, and for ``load_from`` of a config. Resuming the
authors' training from it is not supported.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pss_razor.commands.command_line import one_line_errors

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Import files of the PSS-Net authors' program; nothing is executed")
    commands = parser.add_subparsers(dest="command", required=True)
    checkpoint = commands.add_parser(
        "checkpoint", help="weights, BN statistics and pools, to test and export; training cannot be resumed from it"
    )
    checkpoint.add_argument("input", metavar="IN", help="checkpoint of the authors' program")
    checkpoint.add_argument("output", metavar="OUT", help="checkpoint of this project, .pth")
    checkpoint.add_argument(
        "--config",
        help="config that the result is for (default: the one of the file's backbone and metrics in configs/pss, with "
        "the file's number of classes)",
    )
    checkpoint.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="override settings of the config")
    table = commands.add_parser("latency-table", help="measured latencies of blocks")
    table.add_argument("input", metavar="IN", help="pickled table of the authors' program")
    table.add_argument("output", metavar="OUT", help="latency table of this project, .json")
    table.add_argument("--device", required=True, choices=["cpu", "cuda"], help="what it was measured on")
    table.add_argument("--note", help="how it was measured: name of the device, backend, threads, …")
    return parser.parse_args()


def convert_checkpoint(args: argparse.Namespace) -> None:
    """Write a checkpoint for ``--config``, or for the config of its backbone and metrics."""
    from pss_razor.converters import RELEASED_MODELS, PSSNetCheckpoint, find_released_model, import_checkpoint
    from pss_razor.engine.launch import load_config

    source = PSSNetCheckpoint.read(args.input)
    name = args.config
    if name is None:
        name = str(CONFIGS / RELEASED_MODELS[find_released_model(source.layout.backbone, source.pools)].config)
    config = load_config(name, args.cfg_options, "none", None)
    if args.config is None:
        config.merge_from_dict({"model.architecture.head.num_classes": source.num_classes})
        name += f" --cfg-options model.architecture.head.num_classes={source.num_classes}"
    print(*import_checkpoint(source, config, args.output), sep="\n")
    print(f"wrote {args.output}, for {name}; to test and export, not to resume a training")


def convert_latency_table(args: argparse.Namespace) -> None:
    """Write a latency table of this project, with its provenance."""
    from pss_razor.converters import read_pssnet_latencies
    from pss_razor.estimators.latency.latency_table import LatencyTable

    latencies_us = read_pssnet_latencies(args.input)
    provenance = dict(imported_from=f"PSS-Net: {Path(args.input).name}")
    if args.note is not None:
        provenance["note"] = args.note
    LatencyTable(latencies_us, args.device, provenance).save(Path(args.output))
    print(f"wrote {args.output}: {len(latencies_us)} blocks on {args.device}")


def main() -> None:
    """Convert."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        from pss_razor.core import ConfigError

        try:
            convert_checkpoint(args) if args.command == "checkpoint" else convert_latency_table(args)
        except OSError as error:  # nearly always OUT; the error names the file
            raise ConfigError(f"{args.input} cannot be converted to {args.output}: {error}") from error


if __name__ == "__main__":
    main()
