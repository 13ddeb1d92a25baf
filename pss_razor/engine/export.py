"""Export the best subnet of each pool as a static network, in several formats."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from pss_razor.core import ConfigError, ExportError
from pss_razor.deploy import StaticNet, trace_static, write_manifest
from pss_razor.deploy.bundle import BundledSubnet, load_bundle, round_bn_statistics, save_bundle
from pss_razor.deploy.files import MANIFEST_FILE
from pss_razor.engine.bn_calibration import set_bn_statistics
from pss_razor.engine.export_formats import BUNDLE, FORMATS, Run
from pss_razor.engine.export_record import ExportRecord
from pss_razor.engine.pool_evaluator import PoolEvaluator
from pss_razor.engine.preprocessing import describe_preprocessing
from pss_razor.engine.results import primary_metric
from pss_razor.version import __version__

BUNDLE_FILE = "bundle.safetensors"
# Of the largest logit. The bundle runs the same operations as the static network.
BUNDLE_MAX_PARITY_ERROR = FORMATS["torch"].max_parity_error
# More would take time and show nothing else.
_MAX_PARITY_IMAGES = 32


class WithoutResize(nn.Module):
    """The classifier after its input resizer: a static network resizes by itself what is not its resolution."""

    def __init__(self, architecture: nn.Module) -> None:
        super().__init__()
        self.backbone = architecture.backbone
        self.neck = architecture.neck if architecture.neck is not None else nn.Identity()
        self.head = architecture.head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        return self.head(self.neck(self.backbone(images)))


def export_subnets(
    evaluator: PoolEvaluator,
    records: Sequence[dict[str, Any]],
    dataloader: DataLoader,
    directory: Path,
    formats: Sequence[str] = ("torch",),
    input_size: str = "own",
    source: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Write static networks and their manifest.

    All formats of a subnet have the same BN statistics, rounded by
    :func:`~pss_razor.deploy.bundle.round_bn_statistics`. Files that an earlier run completed are kept.

    Args:
        evaluator: Calibrates BN; its algorithm has the trained weights.
        records: The subnets, one for each pool, as :func:`~pss_razor.engine.export_choice.choose_subnets` returns them.
        dataloader: Validation images; each network, read back from its files, is compared with the supernet on some.
        directory: Gets a folder for each subnet, ``bundle.safetensors``, and ``manifest.json`` last, when all are
            complete.
        formats: Of :data:`~pss_razor.engine.export_formats.FORMATS`, and ``"bundle"``.
        input_size: What ``.pt2`` and ONNX files take: images of the subnet's ``"own"`` resolution, or of the
            ``"full"`` one of the validation images, which the graph resizes.
        source: JSON-able; all that the weights and statistics follow from, see
            :func:`~pss_razor.engine.export_source.describe_source`. Files of an earlier run are kept if it is the
            same; None keeps none.

    Returns:
        The manifest's entries.

    Raises:
        ConfigError: A bundle is wanted of subnets that were not evaluated.
        ExportError: An exported network's logits differ from the supernet's by more than its format may.
    """
    check_bundle_accuracies(records, formats)
    exporter = _Exporter(evaluator, dataloader, directory, formats, input_size, source)
    return exporter.export(records)


def check_bundle_accuracies(records: Sequence[Mapping[str, Any]], formats: Sequence[str]) -> None:
    """Check that subnets can go into a bundle, if one is wanted.

    Raises:
        ConfigError: One was not evaluated.
    """
    unmeasured = [record["name"] for record in records if "metrics" not in record]
    if BUNDLE in formats and unmeasured:
        raise ConfigError(
            f"--formats bundle: {', '.join(unmeasured)} were not evaluated, and a bundle chooses among its subnets by "
            "accuracy; leave --no-evaluate out, or give --results that have them"
        )


class _Exporter:
    """The arguments of :func:`export_subnets`, and what belongs to them."""

    def __init__(
        self,
        evaluator: PoolEvaluator,
        dataloader: DataLoader,
        directory: Path,
        formats: Sequence[str],
        input_size: str,
        source: Mapping[str, Any] | None,
    ) -> None:
        self.evaluator = evaluator
        self.algorithm = evaluator.algorithm
        self.dataloader = dataloader
        self.directory = directory
        self.formats = [name for name in formats if name != BUNDLE]
        self.has_bundle = BUNDLE in formats
        self.input_size = input_size
        self.source = source
        self.preprocessing = describe_preprocessing(self.algorithm, dataloader)
        self.images = torch.empty(0)

    def export(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        done = {record["name"]: self._record_of(record) for record in records}
        fields = [self._fields(record) for record in records]
        bundle_record = ExportRecord(self.directory, self.source and [self.source, self.preprocessing, fields])
        make_bundle = self.has_bundle and bundle_record.parity_error(BUNDLE) is None
        todo = {
            name: [kind for kind in self.formats if record.parity_error(kind, self._settings(kind)) is None]
            for name, record in done.items()
        }
        if make_bundle or any(todo.values()):
            # Until all is complete again, the folder has no manifest that could be of other files.
            (self.directory / MANIFEST_FILE).unlink(missing_ok=True)
            self.directory.mkdir(parents=True, exist_ok=True)
            with self.evaluator.isolated(), torch.no_grad():
                self._make(records, done, todo, bundle_record if make_bundle else None)
        entries = []
        bundle_errors = bundle_record.parity_error(BUNDLE) if self.has_bundle else None
        for index, record in enumerate(records):
            errors = {kind: done[record["name"]].parity_error(kind, self._settings(kind)) for kind in self.formats}
            if self.has_bundle:
                errors[BUNDLE] = bundle_errors[index]
            entries.append(self._entry(record, errors))
        write_manifest(self.directory, self._manifest(entries))
        return entries

    def _make(
        self,
        records: Sequence[dict[str, Any]],
        done: Mapping[str, ExportRecord],
        todo: Mapping[str, Sequence[str]],
        bundle_record: ExportRecord | None,
    ) -> None:
        batch = next(iter(self.dataloader))
        bundled: list[BundledSubnet] = []
        expected: list[Tensor] = []
        count = sum(map(len, todo.values())) + (len(records) + 1 if bundle_record is not None else 0)
        with tqdm(total=count, desc="export", unit="step", leave=False) as progress:
            for record in records:
                name = record["name"]
                if not todo[name] and bundle_record is None:
                    continue
                progress.set_postfix_str(f"{name}: BN calibration")
                statistics = self.evaluator.calibrate(record["subnet"])  # leaves the subnet active
                rounded = [(round_bn_statistics(mean), round_bn_statistics(var)) for mean, var in statistics]
                set_bn_statistics(self.algorithm, rounded)
                with _on_cpu(self.algorithm):
                    self.images = self.algorithm.data_preprocessor(batch, False)["inputs"][:_MAX_PARITY_IMAGES]
                    logits = self.algorithm(self.images, mode="tensor")
                    net = trace_static(WithoutResize(self.algorithm.architecture), self._resolution(record))
                    for kind in todo[name]:
                        progress.set_postfix_str(f"{name}: {kind}")
                        error = self._write(kind, net, self.directory / name, logits)
                        done[name].add(kind, FORMATS[kind].files.values(), error, self._settings(kind))
                        progress.update()
                    if bundle_record is not None:
                        net = _share_weights(net, WithoutResize(self.algorithm.architecture).state_dict())
                        bundled.append(BundledSubnet(net=net, **self._fields(record)))
                        expected.append(logits)
                        progress.update()
            if bundle_record is not None:
                progress.set_postfix_str(BUNDLE)
                self._write_bundle(bundled, expected, bundle_record)
                progress.update()

    def _write(self, kind: str, net: StaticNet, folder: Path, expected: Tensor) -> float:
        """Writes one format; returns its parity error."""
        export_format = FORMATS[kind]
        folder.mkdir(exist_ok=True)
        inputs = self.images
        if self.input_size == "own" and not export_format.resizes:
            # As the supernet's input resizer does it.
            inputs = F.interpolate(inputs, (net.resolution, net.resolution), mode="bilinear", align_corners=True)
        example = inputs[:1].repeat(2, 1, 1, 1)
        export_format.save(net, folder, example)
        try:
            return _check_parity(export_format.load(folder), inputs, expected, export_format.max_parity_error, folder)
        except ExportError:
            for file in export_format.files.values():
                (folder / file).unlink()
            raise

    def _write_bundle(
        self, subnets: Sequence[BundledSubnet], expected: Sequence[Tensor], bundle_record: ExportRecord
    ) -> None:
        path = self.directory / BUNDLE_FILE
        save_bundle(path, subnets, self.preprocessing)
        try:
            errors = [
                _check_parity(subnet.net, self.images, logits, BUNDLE_MAX_PARITY_ERROR, f"{path}, {subnet.name}")
                for subnet, logits in zip(load_bundle(path).subnets, expected, strict=True)
            ]
        except ExportError:
            path.unlink()
            raise
        bundle_record.add(BUNDLE, [BUNDLE_FILE], errors)

    def _record_of(self, record: Mapping[str, Any]) -> ExportRecord:
        subnet = self.algorithm.space.to_record(record["subnet"])
        return ExportRecord(self.directory / record["name"], self.source and [self.source, subnet])

    def _settings(self, kind: str) -> str | None:
        """What besides the network a format's files follow from."""
        return None if FORMATS[kind].resizes else self.input_size

    def _resolution(self, record: Mapping[str, Any]) -> int:
        return record["subnet"].get("resolution", self.algorithm.input_size)

    def _fields(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What manifest and bundle both say of a subnet."""
        return {
            "name": record["name"],
            "metric": record["metric"],
            "target": record["target"],
            "resources": record["resources"],
            "accuracy": record["metrics"][primary_metric(record)] if "metrics" in record else None,
            "channels": {
                dimension.name: record["subnet"][dimension.name]
                for dimension in self.algorithm.space.dimensions
                if dimension.kind != "resolution"
            },
            "resolution": self._resolution(record),
        }

    def _entry(self, record: Mapping[str, Any], parity_errors: dict[str, Any]) -> dict[str, Any]:
        """An entry of the manifest."""
        files: dict[str, str] = {}
        facts: dict[str, Any] = {}
        for kind in self.formats:
            files |= {key: f"{record['name']}/{file}" for key, file in FORMATS[kind].files.items()}
            facts |= FORMATS[kind].facts or {}
            if not FORMATS[kind].resizes:
                facts[f"{kind}_input"] = self.input_size
        if self.has_bundle:
            files[BUNDLE] = BUNDLE_FILE
        return {
            **self._fields(record),
            "resource": record["resources"][record["metric"]],
            "accuracy_metric": primary_metric(record) if "metrics" in record else None,
            "selected_by": record["selected_by"],
            "score": record["score"],
            "files": files,
            "parity_error": max(parity_errors.values()),
            "parity_errors": parity_errors,
            **facts,
        }

    def _manifest(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "format": 1,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "versions": {"pss_razor": __version__, "torch": str(torch.__version__)},
            "source": dict(self.source or {}),
            "preprocessing": self.preprocessing,
            "subnets": entries,
        }


def _check_parity(run: Run, inputs: Tensor, expected: Tensor, limit: float, what: object) -> float:
    """The largest difference from the supernet's logits, of the largest logit."""
    error = float((run(inputs) - expected).abs().max() / expected.abs().max())
    if not error <= limit:
        raise ExportError(
            f"{what}: its logits differ from the supernet's by {error:.3g} of the largest logit, more than {limit}; "
            "please report the architecture"
        )
    return error


@contextlib.contextmanager
def _on_cpu(algorithm: nn.Module) -> Iterator[None]:
    """The algorithm on the CPU, where exported networks are compared with it: a GPU rounds differently."""
    device = next(algorithm.parameters()).device
    algorithm.to("cpu")
    try:
        yield
    finally:
        algorithm.to(device)


def _share_weights(net: StaticNet, supernet: Mapping[str, Tensor]) -> StaticNet:
    """The network with views of the supernet's weights wherever they are equal, so that many fit into memory."""
    tensors = dict(net.state_dict())
    for name, own in net.named_parameters():  # not the BN statistics, which the next subnet overwrites
        full = supernet[name.removeprefix("layers.")]
        view = full[tuple(slice(size) for size in own.shape)].detach()
        if torch.equal(view, own):
            tensors[name] = view
    return StaticNet.from_tensors(net.spec, tensors)
