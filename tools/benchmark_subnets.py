"""Time exported subnets: ``python tools/benchmark_subnets.py DIR``, with the folder of tools/export_subnets.py."""

import argparse

from pss_razor.commands.command_line import one_line_errors

# File kinds of the manifest by the format that they belong to.
FORMAT_FILES = {"torch": ("spec", "weights"), "pt2": ("pt2",), "onnx": ("onnx",)}
BACKENDS = {"torch": "torch", "onnx": "ONNX Runtime", "bundle": "bundle"}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Time every exported subnet on this machine's CPU, one image at a time: torch, ONNX Runtime, and "
        "out of the bundle, as far as they were exported. Writes benchmark.json, .md and .png into DIR"
    )
    parser.add_argument("directory", metavar="DIR", help="folder that tools/export_subnets.py wrote")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=30, help="timings of each (default: 30)")
    return parser.parse_args()


def main() -> None:
    """Time, and write the table and the plot."""
    args = parse_args()
    with one_line_errors():
        # Imported late: --help answers at once.
        import json
        from pathlib import Path

        import torch
        from tqdm import tqdm

        from pss_razor.core import ConfigError, atomic_write
        from pss_razor.deploy import read_manifest
        from pss_razor.estimators.latency.measure import describe_machine, time_interleaved
        from pss_razor.visualization.latency_macs import draw_latency_against_macs

        for name in ("threads", "rounds"):
            if getattr(args, name) < 1:
                raise ConfigError(f"--{name} {getattr(args, name)} must be at least 1")
        folder = Path(args.directory)
        subnets = read_manifest(folder)["subnets"]
        if not subnets:
            raise ConfigError(f"{folder} has no subnets; export some with tools/export_subnets.py")
        torch.set_num_threads(args.threads)
        with torch.inference_mode():
            calls = prepare_calls(folder, subnets, args.threads)
            if not calls:
                raise ConfigError(f"{folder} has nothing to time; export with --formats torch,onnx,bundle")
            with tqdm(total=len(calls) * (args.rounds + 1), unit="call", leave=False) as progress:
                counted = [lambda call=call: (call(), progress.update()) for call in calls.values()]
                timings = dict(zip(calls, time_interleaved(counted, args.rounds, "cpu"), strict=True))
        rows = [make_row(folder, index, subnet, timings) for index, subnet in enumerate(subnets)]
        columns = latency_columns(rows)
        backends = sorted({backend for _, backend in calls})
        machine = {**describe_machine("cpu", "torch"), "backend": backends, "rounds": args.rounds, "batch": 1}
        document = {"format": 1, "machine": machine, "units": "microseconds, bytes, 1e6 MACs", "subnets": rows}
        table = format_table(rows, columns, machine)
        atomic_write(folder / "benchmark.json", f"{json.dumps(document, indent=1)}\n".encode())
        atomic_write(folder / "benchmark.md", table.encode())
        written = "benchmark.json, benchmark.md"
        if all("flops" in row for row in rows):
            atomic_write(folder / "benchmark.png", draw_latency_against_macs(rows, columns))
            written += ", benchmark.png"
        print(f"{table}\nwrote {written} to {folder}")


def prepare_calls(folder, subnets, threads):
    """(Index of a subnet, backend) -> a call that runs one image of the size that the subnet takes."""
    import torch

    from pss_razor.deploy import load_subnet
    from pss_razor.deploy.bundle import load_bundle

    generator = torch.Generator().manual_seed(0)
    bundles = {
        file: load_bundle(folder / file).subnets for file in {s["files"].get("bundle") for s in subnets} - {None}
    }
    calls = {}
    for index, subnet in enumerate(subnets):
        files, size = subnet["files"], subnet["resolution"]
        images = torch.randn(1, 3, size, size, generator=generator)
        if "weights" in files:
            net = load_subnet((folder / files["weights"]).parent)
            calls[index, "torch"] = lambda net=net, images=images: net(images)
        if "bundle" in files:
            key = subnet["metric"], subnet["target"]
            net = next(s.net for s in bundles[files["bundle"]] if (s.metric, s.target) == key)
            calls[index, "bundle"] = lambda net=net, images=images: net(images)
        if "onnx" in files:
            calls[index, "onnx"] = prepare_onnx(folder / files["onnx"], size, threads)
    return calls


def prepare_onnx(path, size, threads):
    """A call that runs one image in ONNX Runtime, of the file's own input size if that is fixed."""
    import numpy as np

    from pss_razor.core import check_extra

    check_extra("onnx", "onnxruntime", what="an ONNX file")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()
    sides = [side if isinstance(side, int) else size for side in wanted.shape[2:]]
    images = np.random.default_rng(0).standard_normal((1, 3, *sides), dtype=np.float32)
    return lambda: session.run(None, {wanted.name: images})


def make_row(folder, index, subnet, timings):
    """What is known of a subnet: resources, sizes of its files, latencies."""
    row = {
        "name": f"{subnet['metric']}_{subnet['target']}",
        "resolution": subnet["resolution"],
        "accuracy": subnet["accuracy"],
        **subnet.get("resources", {}),
    }
    for name, kinds in FORMAT_FILES.items():
        paths = [folder / subnet["files"][kind] for kind in kinds if kind in subnet["files"]]
        row[f"{name}_bytes"] = sum(path.stat().st_size for path in paths) or None
    for backend in BACKENDS:
        timing = timings.get((index, backend))
        row[f"{backend}_us"] = timing and round(timing.median_us, 1)
        row[f"{backend}_spread_us"] = timing and round(timing.spread_us, 1)
    return row


def latency_columns(rows):
    """Key of a latency in the rows -> its label: those that were measured, and those that were predicted."""
    measured = {f"{backend}_us": label for backend, label in BACKENDS.items()}
    predicted = {key: f"{key}, predicted" for key in rows[0] if key.startswith("latency")}
    return {key: label for key, label in {**measured, **predicted}.items() if any(row.get(key) for row in rows)}


def format_table(rows, columns, machine):
    """A Markdown table."""
    sizes = [f"{name}_bytes" for name in FORMAT_FILES if any(row[f"{name}_bytes"] for row in rows)]
    header = ["subnet", "resolution", "MFLOPs", "M params", "accuracy"]
    header += [f"{name.removesuffix('_bytes')} MB" for name in sizes]
    header += [f"{label}, ms" for label in columns.values()]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for row in rows:
        cells = [row["name"], str(row["resolution"]), *(show(row.get(key), 1, 2) for key in ("flops", "params"))]
        cells += [show(row["accuracy"], 1, 2), *(show(row[name], 1e6, 2) for name in sizes)]
        cells += [show(row.get(key), 1e3, 2) for key in columns]
        lines.append(cells)
    about = "{device_name}, {threads} thread(s), batch 1, median of {rounds} rounds, torch {torch}, {date}"
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", about.format(**machine), ""])


def show(value, unit, digits):
    """A cell of the table: the value in multiples of ``unit``, or nothing for None."""
    return "" if value is None else f"{value / unit:.{digits}f}"


if __name__ == "__main__":
    main()
