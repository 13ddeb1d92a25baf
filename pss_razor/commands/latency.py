"""Measure a latency table here: ``pss-latency CONFIG --device cpu --out FILE``, or tools/latency/build_table.py."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pss_razor.commands.command_line import new_parser, one_line_errors, parse

if TYPE_CHECKING:
    from pss_razor.core.cost_graph import BlockGeometry
    from pss_razor.estimators.latency.timing import Timing


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("Measure the latency of every block of a config's search space", needs_checkpoint=False)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True, help="where to measure")
    parser.add_argument("--out", required=True, help="latency table, .json; an interrupted run continues from it")
    parser.add_argument("--backend", choices=["torch", "onnxruntime"], default="torch", help="what runs the networks")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch", type=int, default=1, help="images a call; latencies are of one image")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each block; the table has their median")
    parser.add_argument(
        "--max-blocks",
        type=int,
        default=2000,
        help="of a space with more block geometries, measure so many and interpolate between them",
    )
    return parse(parser)


def main() -> None:
    """Measure what the table does not have yet."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        import random

        import numpy as np
        import torch
        from tqdm import tqdm

        from pss_razor.core import ConfigError
        from pss_razor.engine.launch import load_config
        from pss_razor.estimators import LatencyTable
        from pss_razor.estimators.latency.inference_backends import inference_backend
        from pss_razor.estimators.latency.interpolation import choose_subset
        from pss_razor.estimators.latency.latency_estimator import block_latencies
        from pss_razor.estimators.latency.measure import describe_machine, find_geometries, measure_blocks
        from pss_razor.estimators.latency.timing import MachineSpeed
        from pss_razor.models import build_supernet
        from pss_razor.models.static_subnet import static_subnet

        for name in ("batch", "rounds", "max_blocks"):
            if getattr(args, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)} must be at least 1")
        prepare = inference_backend(args.backend, args.device, args.threads)
        config = load_config(args.config, args.cfg_options, "none", args.work_dir)
        provenance = {
            "config": args.config,
            "batch": args.batch,
            "rounds": args.rounds,
            **describe_machine(args.device, args.backend),
        }
        out = Path(args.out)
        latencies_us: dict = {}
        spreads: list = []
        if out.exists():
            before = LatencyTable.load(out)
            same = ("backend", "batch", "threads", "device_name")
            changed = [key for key in same if before.provenance.get(key) != provenance[key]]
            if before.device != args.device or changed:
                raise ConfigError(f"{out} was measured with another {changed or 'device'}; choose another --out")
            latencies_us.update(before.latencies_us)
            provenance = dict(before.provenance)
            provenance.pop("interpolation", None)  # its errors are of the earlier set of blocks
            spreads = [provenance.get("median_relative_spread", 0.0)] * len(latencies_us)
        out.parent.mkdir(parents=True, exist_ok=True)
        supernet, mutator, graph = build_supernet(config)
        input_size = config.model.get("input_size")
        smallest = static_subnet(supernet, mutator, mutator.space.smallest, args.device, args.batch, input_size)
        with torch.inference_mode():
            speed = MachineSpeed(prepare(*smallest), args.device, provenance.get("reference_us"))
        provenance["reference_us"] = speed.reference_us
        possible = graph.geometries
        subset = choose_subset(graph, args.max_blocks)
        # An earlier run may have measured blocks outside the subset.
        others = [g for g in possible if g not in subset and g not in latencies_us]
        interpolate = bool(others)

        def measure(geometries: Collection[BlockGeometry], description: str) -> Iterator[dict[BlockGeometry, Timing]]:
            """Timings of blocks, chunk by chunk, with a progress bar."""
            blocks = find_geometries(graph, set(geometries))
            with tqdm(total=len(blocks), unit="block", desc=description) as progress:
                for timings in measure_blocks(
                    supernet, mutator.active, blocks, prepare, args.device, args.batch, args.rounds, speed
                ):
                    yield timings
                    progress.update(len(timings))

        def save() -> LatencyTable:
            table = LatencyTable(latencies_us, args.device, provenance, interpolate=interpolate)
            table.save(out)
            return table

        wanted = [geometry for geometry in possible if geometry in subset and geometry not in latencies_us]
        for timings in measure(wanted, f"{len(latencies_us)} blocks known"):
            latencies_us |= {geometry: timing.median_us / args.batch for geometry, timing in timings.items()}
            spreads += [timing.spread_us / timing.median_us for timing in timings.values()]
            provenance["median_relative_spread"] = round(float(np.median(spreads)), 4)
            save()
        print(f"{out}: {len(latencies_us)} blocks of {len(possible)}, median spread {np.median(spreads):.1%}")
        table = save()
        if interpolate:
            left_out = random.Random(0).sample(others, min(48, len(others)))
            interpolated = block_latencies(table, graph)
            (timings,) = measure(left_out, "check of the interpolation")
            errors = [abs(interpolated[g] / (timings[g].median_us / args.batch) - 1) for g in left_out]
            provenance["interpolation"] = {
                "measured_blocks": len(latencies_us),
                "of_blocks": len(possible),
                "checked_blocks": len(errors),
                "median_error": round(float(np.median(errors)), 4),
                "worst_error": round(float(np.max(errors)), 4),
            }
            save()
            median, worst = np.median(errors), np.max(errors)
            print(f"interpolation, on {len(errors)} others: median error {median:.1%}, worst {worst:.1%}")
        print("check it on whole subnets with tools/latency/verify_table.py")
