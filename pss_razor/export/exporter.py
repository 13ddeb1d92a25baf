"""Export the best subnet of each pool as a static network, in several formats."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from pss_razor.conversion.layers import PartialLayer
from pss_razor.core import ConfigError, Criterion, EvaluatedSubnet, ExportError, Workers, usable_cores
from pss_razor.deploy import write_manifest
from pss_razor.deploy.bundle import BundledSubnet, load_bundle, round_bn_statistics, save_bundle
from pss_razor.deploy.files import MANIFEST_FILE
from pss_razor.deploy.joined_weight import Parts
from pss_razor.deploy.subnet_record import SubnetRecord
from pss_razor.evaluation.bn_calibration import set_bn_statistics
from pss_razor.evaluation.pool_evaluator import PoolEvaluator
from pss_razor.export.formats import BUNDLE, FORMATS, installed_versions
from pss_razor.export.network_files import NetworkFiles, check_parity, relative_error, torch_threads, write_files
from pss_razor.export.plain_network import PlainNetwork
from pss_razor.export.preprocessing import describe_preprocessing
from pss_razor.export.record import ExportRecord
from pss_razor.models import ConvertedImageClassifier
from pss_razor.models.static_subnet import WithoutResize, to_plain
from pss_razor.static import StaticNet, trace_static

BUNDLE_FILE = "bundle.safetensors"
# Relative to the largest logit. The bundle runs the same operations as the static network.
BUNDLE_MAX_PARITY_ERROR = FORMATS["torch"].max_parity_error
# Networks -> the metrics of each.
Measure = Callable[[Sequence[nn.Module]], list[dict[str, Any]]]
# Key of a network's accuracy in an export's record.
_ACCURACY = "accuracy"
# More images would take longer and show no more.
_MAX_PARITY_IMAGES = 32


def export_subnets(
    evaluator: PoolEvaluator,
    subnets: Sequence[EvaluatedSubnet],
    dataloader: DataLoader,
    directory: Path,
    formats: Sequence[str] = ("torch",),
    input_size: str = "own",
    source: Mapping[str, Any] | None = None,
    criterion: Criterion = Criterion(),  # noqa: B008 - frozen
    measure: Measure | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Write static networks and their manifest.

    All formats of a subnet have the same BN statistics, rounded by
    :func:`~pss_razor.deploy.bundle.round_bn_statistics`. Files that an earlier run completed are kept.

    Args:
        evaluator: Calibrates BN; its algorithm has the trained weights.
        subnets: The subnets, one for each pool, as :func:`~pss_razor.export.choice.choose_subnets` returns them.
        dataloader: Validation images; each network, read back from its files, is compared with the supernet on some.
        directory: Gets a folder for each subnet, ``bundle.safetensors``, and ``manifest.json`` last, when all are
            complete.
        formats: Of :data:`~pss_razor.export.formats.FORMATS`, and ``"bundle"``.
        input_size: What ``.pt2`` and ONNX files take: images of the subnet's ``"own"`` resolution, or of the
            ``"full"`` one of the validation images, which the graph resizes.
        source: JSON-able; all that weights and statistics depend on, see
            :func:`~pss_razor.export.source.describe_source`. Files of an earlier run are kept if it is the
            same; None keeps none.
        criterion: The metric that manifest and bundle have as accuracy.
        measure: Evaluates the exported networks of the subnets that have ``metrics``; None takes the accuracies of
            the supernet.
        preprocessing: What manifest and bundle say of it; None reads it off the algorithm and the data loader.
        jobs: How many processes write networks at once; the files are the same for any number. Those of networks that
            are not static, which a converted network can have, are written in this process.

    Returns:
        The manifest's entries.

    Raises:
        ConfigError: A bundle is wanted of subnets that were not evaluated.
        ExportError: An exported network's logits differ from the supernet's by more than its format may.
    """
    check_bundle_accuracies(subnets, formats)
    preprocessing = preprocessing or describe_preprocessing(evaluator.algorithm, dataloader)
    exporter = _Exporter(
        evaluator, dataloader, directory, formats, input_size, source, criterion, measure, preprocessing, jobs
    )
    return exporter.export(subnets)


def check_bundle_accuracies(subnets: Sequence[EvaluatedSubnet], formats: Sequence[str]) -> None:
    """Check that subnets can go into a bundle, if one is wanted.

    Raises:
        ConfigError: One was not evaluated.
    """
    unmeasured = [own.name for own in subnets if own.metrics is None]
    if BUNDLE in formats and unmeasured:
        raise ConfigError(
            f"--formats bundle: {', '.join(unmeasured)} were not evaluated, and a bundle chooses among its subnets by "
            "accuracy; leave --no-evaluate out, or give --results that have them"
        )


@dataclass(frozen=True)
class _Made:
    """What is known of a subnet when it is calibrated.

    Args:
        logits: The supernet's, with the statistics that are exported.
        rounding_error: Their distance to those with statistics before rounding.
        net: The network, sharing the supernet's weights; None if nobody needs it once its files are written.
        parts: See :func:`_list_parts`.
    """

    logits: Tensor
    rounding_error: float
    net: Any = None
    parts: dict[str, Parts] = field(default_factory=dict)


class _Exporter:
    """The arguments of :func:`export_subnets`, and the steps of an export."""

    def __init__(
        self,
        evaluator: PoolEvaluator,
        dataloader: DataLoader,
        directory: Path,
        formats: Sequence[str],
        input_size: str,
        source: Mapping[str, Any] | None,
        criterion: Criterion,
        measure: Measure | None,
        preprocessing: Mapping[str, Any],
        jobs: int,
    ) -> None:
        self.evaluator = evaluator
        self.algorithm = evaluator.algorithm
        self.dataloader = dataloader
        self.directory = directory
        self.formats = [name for name in formats if name != BUNDLE]
        self.has_bundle = BUNDLE in formats
        self.input_size = input_size
        self.source = source
        self.criterion = criterion
        self.measure = measure
        self.preprocessing = dict(preprocessing)
        self.jobs = jobs
        self.images = torch.empty(0)

    def export(self, subnets: Sequence[EvaluatedSubnet]) -> list[dict[str, Any]]:
        done = {own.name: self._record_of(own) for own in subnets}
        bundled = [[own.name, self.algorithm.space.to_record(own.subnet)] for own in subnets]
        bundle_record = ExportRecord(self.directory, self.source and [self.source, self.preprocessing, bundled])
        make_bundle = self.has_bundle and bundle_record.facts(BUNDLE, self._settings(BUNDLE)) is None
        todo = {
            name: [kind for kind in self.formats if record.facts(kind, self._settings(kind)) is None]
            for name, record in done.items()
        }
        unmeasured = {
            own.name
            for own in subnets
            if self.measure is not None
            and own.metrics is not None
            and done[own.name].facts(_ACCURACY, self._settings(_ACCURACY)) is None
        }
        if make_bundle or unmeasured or any(todo.values()):
            # Until all files are complete, no manifest: it would be of other files.
            (self.directory / MANIFEST_FILE).unlink(missing_ok=True)
            self.directory.mkdir(parents=True, exist_ok=True)
            with self.evaluator.isolated(), torch.no_grad():
                self._make(subnets, done, todo, unmeasured, bundle_record if make_bundle else None)
        entries = []
        bundle_facts = bundle_record.facts(BUNDLE, self._settings(BUNDLE)) if self.has_bundle else None
        for index, own in enumerate(subnets):
            facts = {kind: done[own.name].facts(kind, self._settings(kind)) for kind in self.formats}
            if bundle_facts is not None:
                facts[BUNDLE] = bundle_facts["subnets"][index]
            entries.append(self._entry(own, self._accuracy(own, done[own.name]), facts))
        write_manifest(self.directory, self._manifest(entries))
        return entries

    def _make(
        self,
        subnets: Sequence[EvaluatedSubnet],
        done: Mapping[str, ExportRecord],
        todo: Mapping[str, Sequence[str]],
        unmeasured: Collection[str],
        bundle_record: ExportRecord | None,
    ) -> None:
        made: dict[str, _Made] = {}
        steps = sum(map(len, todo.values())) + len(unmeasured) + (1 if bundle_record is not None else 0)
        kept = {own.name for own in subnets} if bundle_record is not None else unmeasured
        wanted = [own for own in subnets if todo[own.name] or own.name in kept]
        # Static networks alone are written in less time than a process takes to start.
        traced = sum(any(not FORMATS[kind].resizes for kind in kinds) for kinds in todo.values())
        num_workers = min(self.jobs, traced) if self._is_static else 1
        with (
            tqdm(total=steps, desc="export", unit="step", leave=False) as progress,
            Workers(write_files, num_workers, lambda files: files.folder.name) as workers,
        ):
            # Threads that share their cores with other processes wait for each other. What is left is for calibration.
            threads = torch.get_num_threads()
            if num_workers > 1:
                threads = min(threads, max(1, usable_cores() - num_workers))
            with torch_threads(threads):
                for files, (kind, error) in workers.run(self._files(wanted, todo, kept, made, progress)):
                    name = files.folder.name
                    facts = {"parity_error": error, "rounding_error": made[name].rounding_error}
                    done[name].add(kind, FORMATS[kind].files.values(), facts, self._settings(kind))
                    progress.set_postfix_str(f"{name}: {kind}")
                    progress.update()
            if unmeasured:
                progress.set_postfix_str("accuracies")
                self._measure({name: made[name].net for name in made if name in unmeasured}, done)
                progress.update(len(unmeasured))
            if bundle_record is not None:
                progress.set_postfix_str(BUNDLE)
                accuracies = {own.name: self._accuracy(own, done[own.name]) for own in subnets}
                facts_of_subnets = self._write_bundle(subnets, accuracies, made)
                bundle_record.add(BUNDLE, [BUNDLE_FILE], {"subnets": facts_of_subnets}, self._settings(BUNDLE))
                progress.update()

    def _files(
        self,
        subnets: Sequence[EvaluatedSubnet],
        todo: Mapping[str, Sequence[str]],
        kept: Collection[str],
        made: dict[str, _Made],
        progress: tqdm,
    ) -> Iterator[NetworkFiles]:
        """Calibrate each subnet, note it in ``made``, with its network if it is in ``kept``, and say what to write."""
        batch = next(iter(self.dataloader))
        for own in subnets:
            progress.set_postfix_str(f"{own.name}: BN calibration")
            statistics = self.evaluator.calibrate(own.subnet)  # leaves the subnet active
            rounded = [(round_bn_statistics(mean), round_bn_statistics(var)) for mean, var in statistics]
            with _on_cpu(self.algorithm):
                self.images = self.algorithm.data_preprocessor(batch, False)["inputs"][:_MAX_PARITY_IMAGES]
                unrounded = self.algorithm(self.images, mode="tensor")
                set_bn_statistics(self.algorithm, rounded)
                logits = self.algorithm(self.images, mode="tensor")
                net = self._network(own)
                made[own.name] = _Made(logits, relative_error(logits, unrounded))
                if own.name in kept:
                    supernet = WithoutResize(self.algorithm.architecture)
                    shared = _share_weights(net, supernet.state_dict()) if isinstance(net, StaticNet) else net
                    made[own.name] = dataclasses.replace(made[own.name], net=shared, parts=_list_parts(supernet))
            if todo[own.name]:
                folder = self.directory / own.name
                yield NetworkFiles(net, folder, todo[own.name], self.images, logits, self.input_size)

    def _network(self, own: EvaluatedSubnet) -> StaticNet | PlainNetwork:
        """The active subnet as a network of its own."""
        network, resolution = WithoutResize(self.algorithm.architecture), self._resolution(own)
        if self._is_static:
            return trace_static(network, resolution)
        return PlainNetwork(to_plain(network), resolution).requires_grad_(False)

    @property
    def _is_static(self) -> bool:
        """Whether subnets become static networks; those of a converted network need not, for other formats."""
        has_static_files = self.has_bundle or "torch" in self.formats
        return has_static_files or not isinstance(self.algorithm.architecture, ConvertedImageClassifier)

    def _measure(self, nets: Mapping[str, nn.Module], done: Mapping[str, ExportRecord]) -> None:
        """Measure exported networks and record their accuracies."""
        assert self.measure is not None
        for name, metrics in zip(nets, self.measure(list(nets.values())), strict=True):
            done[name].add(_ACCURACY, [], {"accuracy": self.criterion.value(metrics)}, self._settings(_ACCURACY))

    def _accuracy(self, own: EvaluatedSubnet, done: ExportRecord) -> float | None:
        """Accuracy of the exported network if networks are measured, else in the supernet; None if not evaluated."""
        if own.metrics is None:
            return None
        if self.measure is not None:
            return done.facts(_ACCURACY, self._settings(_ACCURACY))["accuracy"]  # type: ignore[index]
        return self.criterion.value(own.measured)

    def _write_bundle(
        self, subnets: Sequence[EvaluatedSubnet], accuracies: Mapping[str, float | None], made: Mapping[str, _Made]
    ) -> list[dict[str, float]]:
        """Writes the bundle; returns the errors of each subnet."""
        path = self.directory / BUNDLE_FILE
        bundled = [
            BundledSubnet(net=made[own.name].net, parts=made[own.name].parts, **self._fields(own, accuracies[own.name]))
            for own in subnets
        ]
        save_bundle(path, bundled, self.preprocessing)
        try:
            facts = []
            for subnet in load_bundle(path).subnets:
                own, what = made[subnet.name], f"{path}, {subnet.name}"
                error = check_parity(subnet.net, self.images, own.logits, BUNDLE_MAX_PARITY_ERROR, what)
                facts.append({"parity_error": error, "rounding_error": own.rounding_error})
            return facts
        except ExportError:
            path.unlink()
            raise

    def _record_of(self, own: EvaluatedSubnet) -> ExportRecord:
        subnet = self.algorithm.space.to_record(own.subnet)
        return ExportRecord(self.directory / own.name, self.source and [self.source, subnet])

    def _settings(self, kind: str) -> dict[str, Any]:
        """What a format's files, or an accuracy, depend on besides the network."""
        if kind == _ACCURACY:
            return {"criterion": dataclasses.asdict(self.criterion), "versions": installed_versions(("torch",))}
        if kind == BUNDLE:
            return {"versions": installed_versions(("torch",))}
        own_format = FORMATS[kind]
        settings: dict[str, Any] = {} if own_format.resizes else {"input_size": self.input_size}
        return {**settings, "versions": installed_versions(own_format.packages)}

    def _resolution(self, own: EvaluatedSubnet) -> int:
        return own.subnet.get("resolution", self.algorithm.input_size)

    def _fields(self, own: EvaluatedSubnet, accuracy: float | None) -> dict[str, Any]:
        """What manifest and bundle both say of a subnet."""
        record = {"channels": {}, **own.to_record(self.algorithm.space)}
        return SubnetRecord.from_record(record, accuracy=accuracy, resolution=self._resolution(own)).to_json()

    def _entry(
        self, own: EvaluatedSubnet, accuracy: float | None, facts_of_formats: Mapping[str, Any]
    ) -> dict[str, Any]:
        """An entry of the manifest."""
        files: dict[str, str] = {}
        facts: dict[str, Any] = {}
        for kind in self.formats:
            files |= {key: f"{own.name}/{file}" for key, file in FORMATS[kind].files.items()}
            facts |= FORMATS[kind].facts or {}
            if not FORMATS[kind].resizes:
                facts[f"{kind}_input"] = self.input_size
        if self.has_bundle:
            files[BUNDLE] = BUNDLE_FILE
        if accuracy is not None:
            metrics = own.measured
            metric = self.criterion.resolve(metrics).name
            facts |= {"accuracy_metric": metric, "accuracy_rule": self.criterion.rule}
            facts |= {"accuracy_of": "the supernet" if self.measure is None else "the export"}
            facts |= {"supernet_accuracy": metrics[metric]}
        parity_errors = {kind: found["parity_error"] for kind, found in facts_of_formats.items()}
        assert own.metric is not None, "it is of a pool"
        return {
            **self._fields(own, accuracy),
            "resource": own.resources[own.metric],
            "selected_by": own.selected_by,
            "score": own.score,
            "files": files,
            "parity_error": max(parity_errors.values()),
            "parity_errors": parity_errors,
            "rounding_error": max(found["rounding_error"] for found in facts_of_formats.values()),
            **facts,
        }

    def _manifest(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "format": 1,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "versions": installed_versions(("torch",)),
            "source": dict(self.source or {}),
            "preprocessing": self.preprocessing,
            "subnets": entries,
        }


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


def _list_parts(supernet: nn.Module) -> dict[str, Parts]:
    """Which parts of its weights the active subnet of a converted network has, where they are not the first ones."""
    found: dict[str, Parts] = {}
    for name, layer in supernet.named_modules():
        if not isinstance(layer, PartialLayer):
            continue
        for short, parameter in layer.named_parameters(recurse=False):
            axes = [layer.outputs.ranges]
            if parameter.dim() > 1 and parameter.shape[1] == layer.inputs.full:  # not of grouped convs
                axes.append(layer.inputs.ranges)
            parts = {axis: ranges for axis, ranges in enumerate(axes) if len(ranges) > 1}
            if parts:
                found[f"layers.{name}.{short}"] = parts
    return found
