"""Import files of the PSS-Net authors' program: ``python tools/converters/pssnet.py {checkpoint,latency-table} …``.

A checkpoint becomes one for tools/test.py and tools/export_subnets.py, and for ``load_from`` of a config. Resuming the
authors' training from it is not supported.
"""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "pss" / "pss_mbv2_flops.py"


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Import files of the PSS-Net authors' program; nothing is executed")
    commands = parser.add_subparsers(dest="command", required=True)
    checkpoint = commands.add_parser(
        "checkpoint", help="weights, BN statistics and pools, to test and export; training cannot be resumed from it"
    )
    checkpoint.add_argument("input", metavar="IN", help="checkpoint of the authors' program, MobileNetV2")
    checkpoint.add_argument("output", metavar="OUT", help="checkpoint of this project, .pth")
    checkpoint.add_argument(
        "--config", help="config that the result is for (default: pss_mbv2_flops.py with the file's number of classes)"
    )
    checkpoint.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="override settings of the config")
    table = commands.add_parser("latency-table", help="measured latencies of blocks")
    table.add_argument("input", metavar="IN", help="pickled table of the authors' program")
    table.add_argument("output", metavar="OUT", help="latency table of this project, .json")
    table.add_argument("--device", required=True, choices=["cpu", "cuda"], help="what it was measured on")
    table.add_argument("--note", help="how it was measured: name of the device, backend, threads, …")
    return parser.parse_args()


def convert_checkpoint(args: argparse.Namespace) -> None:
    """``pssnet.py checkpoint``."""
    import io

    import torch

    from pss_razor.converters import PSSNetCheckpoint
    from pss_razor.core import ConfigError, atomic_write
    from pss_razor.engine.checkpoint import check_state_dict
    from pss_razor.engine.launch import load_config
    from pss_razor.models import PSS
    from pss_razor.registry import MODELS

    from mmengine.registry import init_default_scope

    source = PSSNetCheckpoint.read(args.input)
    config = load_config(args.config or str(DEFAULT_CONFIG), args.cfg_options, "none", None)
    classes = f"model.architecture.head.num_classes={source.num_classes}"
    if args.config is None:
        config.merge_from_dict({"model.architecture.head.num_classes": source.num_classes})
    init_default_scope(config.get("default_scope", "mmrazor"))
    algorithm = MODELS.build(config.model)
    if not isinstance(algorithm, PSS):
        raise ConfigError(f"the model of {args.config} is a {type(algorithm).__name__}; pools need type='PSS'")
    check_state_dict(algorithm, source.weights)
    checkpoint, notes = source.convert(algorithm)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    atomic_write(args.output, buffer.getvalue())
    print(*notes, sep="\n")
    config_name = args.config or f"{DEFAULT_CONFIG} --cfg-options {classes}"
    print(f"wrote {args.output}, for {config_name}; to test and export, not to resume a training")


def convert_latency_table(args: argparse.Namespace) -> None:
    """``pssnet.py latency-table``."""
    from pss_razor.converters import read_pssnet_latencies
    from pss_razor.estimators.latency_table import LatencyTable

    latencies_us = read_pssnet_latencies(args.input)
    provenance = dict(imported_from=f"PSS-Net: {Path(args.input).name}")
    if args.note is not None:
        provenance["note"] = args.note
    LatencyTable(latencies_us, args.device, provenance).save(Path(args.output))
    print(f"wrote {args.output}: {len(latencies_us)} blocks on {args.device}")


def main() -> None:
    """Convert."""
    args = parse_args()
    # Imported late: --help answers at once.
    from pss_razor.core import ConfigError
    from pss_razor.engine.launch import one_line_errors

    with one_line_errors():
        try:
            convert_checkpoint(args) if args.command == "checkpoint" else convert_latency_table(args)
        except OSError as error:  # nearly always OUT; the error names the file
            raise ConfigError(f"{args.input} cannot be converted to {args.output}: {error}") from error


if __name__ == "__main__":
    main()
