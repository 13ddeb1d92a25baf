"""Checkpoints of the PSS-Net authors' program."""

from __future__ import annotations

import ast
import contextlib
import io
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pss_razor.checkpoints.checkpoint import CHECKPOINT_KEY, RANDOM_STATE_KEY, check_state_dict, load_checked
from pss_razor.checkpoints.numpy_stand_ins import numpy_scalar_stand_ins
from pss_razor.converters.pssnet_layout import LAYOUTS, PSSNetLayout, find_layout
from pss_razor.core import (
    CheckpointError,
    ConfigError,
    PrioritizedSubnetSampler,
    SearchSpace,
    Subnet,
    atomic_write,
    is_number,
    make_divisible,
)
from pss_razor.models import PSS
from pss_razor.registry import MODELS
from pss_razor.version import __version__

from mmengine.config import Config
from mmengine.registry import init_default_scope

# The longest text of a subnet that the authors' program writes has about 310 characters.
_MAX_SUBNET_LENGTH = 2000


@dataclass(frozen=True)
class PSSNetCheckpoint:
    """A checkpoint of the PSS-Net authors' program, for MobileNetV1 or MobileNetV2.

    Args:
        path: The file.
        layout: The backbone that it is of.
        weights: Parameters and BN statistics by the names of this project's
            :class:`~pss_razor.models.PSS` on ``SlimmableImageClassifier`` with that backbone.
        pools: Metric -> target -> subnet, as the authors write it, -> score.
        last_epoch: Their last epoch, counted from 0; None if the file does not say.

    Example:
        >>> source = PSSNetCheckpoint.read("checkpoint_249.pt")  # doctest: +SKIP
        >>> checkpoint, notes = source.convert(algorithm)  # doctest: +SKIP
    """

    path: Path
    layout: PSSNetLayout
    weights: dict[str, Tensor]
    pools: dict[str, dict[float, dict[str, float]]]
    last_epoch: int | None = None

    @classmethod
    def read(cls, path: str | Path) -> PSSNetCheckpoint:
        """Read a checkpoint without executing anything in it.

        Raises:
            CheckpointError: The file is missing, truncated, unsafe, of another kind, or of another network.
        """
        path = Path(path)
        content = _load(path)
        if not isinstance(content, dict) or not {"model", "arch_pools"} <= set(content):
            found = _short(sorted(map(str, content))) if isinstance(content, dict) else f"a {type(content).__name__}"
            raise CheckpointError(
                f"{path} is not a checkpoint of the PSS-Net authors' program: it needs 'model' and 'arch_pools', and "
                f"holds {found}"
            )
        last_epoch = content.get("last_epoch")
        try:
            pools = _check_pools(content["arch_pools"])
            weights = rename_weights(content["model"])
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        return cls(
            path, find_layout(content["model"]), weights, pools, last_epoch if isinstance(last_epoch, int) else None
        )

    @property
    def num_classes(self) -> int:
        """Number of classes of the linear layer."""
        return len(self.weights["architecture.head.fc.weight"])

    def convert(self, algorithm: PSS) -> tuple[dict[str, Any], list[str]]:
        """Convert to a checkpoint of this project, for testing, exporting and initialising a training.

        Entries that are the same network (many multipliers round to the same channels) become one, with their best
        score. Resources are those of ``algorithm``. An entry whose resource belongs to another target moves there: its
        score, minus a cross-entropy, does not depend on the target that the subnet was drawn for. One that belongs to
        no target of the config is dropped. If a pool then exceeds the hook's ``pool_size``, loading the checkpoint
        keeps the best entries.

        A training cannot be resumed from it: optimizer, schedule and random states are not converted, and the
        sampler's random generator is a new one.

        Args:
            algorithm: The algorithm of the config that the checkpoint is for. Its weights are not touched, and not
                compared with those of the file.

        Returns:
            The checkpoint, with ``meta``, ``state_dict`` and the state of ``PrioritizedPoolSamplerHook``; and notes on
            what was merged, moved and dropped, for the user.

        Raises:
            CheckpointError: A subnet cannot be read or is outside the search space, or the file has no pools for a
                constraint.
        """
        metrics = [constraint.metric for constraint in algorithm.constraints]
        missing = [metric for metric in metrics if metric not in self.pools]
        if missing:
            raise CheckpointError(
                f"{self.path} has pools for {sorted(self.pools)}, the config's constraints are on {metrics}; give a "
                "config with constraints that the checkpoint has"
            )
        notes = [
            f"{metric}: the config has no such constraint; left out" for metric in self.pools if metric not in metrics
        ]
        # Before building the sampler, which is slow, so that a bad entry is reported at once.
        entries = {metric: self._read_entries(metric, algorithm.space) for metric in metrics}
        # Room for all entries; the hook that loads the pools limits their size.
        size = sum(len(pool) for pools in self.pools.values() for pool in pools.values())
        sampler = PrioritizedSubnetSampler(algorithm.costs, algorithm.constraints, pool_size=max(1, size))
        for metric in metrics:
            notes += _fill_pools(sampler, metric, entries[metric])
        meta = dict(
            imported_from=f"PSS-Net: {self.path.name}", last_epoch=self.last_epoch, pss_razor_version=__version__
        )
        # A clone has a storage of its own: torch.save writes whole storages.
        weights = {name: tensor.clone() for name, tensor in self.weights.items()}
        states = {CHECKPOINT_KEY: sampler.state_dict(), RANDOM_STATE_KEY: {"processes": []}}
        return {"meta": meta, "state_dict": weights, **states}, notes

    def _read_entries(self, metric: str, space: SearchSpace) -> list[tuple[Subnet, float, float]]:
        """Subnet, target and score of every entry of a metric's pools."""
        read = []
        for target, pool in self.pools[metric].items():
            for text, score in pool.items():
                try:
                    read.append((_read_subnet(text, self.layout, space), target, score))
                except (CheckpointError, ConfigError) as error:
                    raise CheckpointError(f"{self.path}, pool {metric} = {target:g}: {error}") from error
        return read


def _fill_pools(
    sampler: PrioritizedSubnetSampler, metric: str, entries: Sequence[tuple[Subnet, float, float]]
) -> list[str]:
    """Put the entries of one metric into the sampler's pools; returns notes for the user."""
    constraint = sampler.conditional_samplers[metric].constraint
    best: dict[Subnet, float] = {}
    for subnet, _, score in entries:
        best[subnet] = max(score, best.get(subnet, -math.inf))
    subnets = list(best)
    resources = sampler.costs[metric](sampler.space.encode(subnets))
    indices = dict(zip(subnets, constraint.nearest_target_index(resources), strict=True))
    for subnet, resource in zip(subnets, resources, strict=True):
        if indices[subnet] >= 0:
            key = metric, constraint.targets[indices[subnet]]
            sampler.pools[key].update(subnet, best[subnet], resource)
    dropped = sum(index < 0 for index in indices.values())
    moved = {s for s, target, _ in entries if indices[s] >= 0 and constraint.targets[indices[s]] != target}
    pools = [pool for (name, _), pool in sampler.pools.items() if name == metric]
    notes = [
        f"{metric}: {len(entries)} entries are {len(subnets)} distinct subnets; "
        f"{sum(map(len, pools))} of them are now in {sum(map(bool, map(len, pools)))} of {len(pools)} pools"
    ]
    if moved:
        notes.append(f"{metric}: {len(moved)} subnets moved to the target that their resource belongs to here")
    if dropped:
        low, high = constraint.targets[0], constraint.targets[-1]
        notes.append(f"{metric}: {dropped} subnets dropped, they belong to no target from {low:g} to {high:g}")
    return notes


def import_checkpoint(source: PSSNetCheckpoint, config: Config, out: str | Path) -> list[str]:
    """Write a checkpoint of this project, for testing and exporting with a config.

    Returns:
        Notes for the user, see :meth:`PSSNetCheckpoint.convert`.

    Raises:
        CheckpointError: It is of another network or other metrics than the config.
        ConfigError: The config's model has no pools, or cannot be built.
    """
    init_default_scope(config.get("default_scope", "mmrazor"))
    algorithm = MODELS.build(config.model)
    if not isinstance(algorithm, PSS):
        raise ConfigError(f"the model of {config.filename} is a {type(algorithm).__name__}; pools need type='PSS'")
    check_state_dict(algorithm, source.weights)
    checkpoint, notes = source.convert(algorithm)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    atomic_write(out, buffer.getvalue())
    return notes


def rename_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state dict by this project's names; the names tell which backbone it is of.

    Args:
        weights: With or without the prefix ``module.`` that data parallelism adds.

    Raises:
        CheckpointError: They are of none of the authors' backbones; names the first tensor.
    """
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError("'model' is not a state dict, a table of tensors")
    layout = find_layout(weights)
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        ours = layout.rename(name)
        if ours is None or ours in renamed:
            known = " or ".join(other.title for other in LAYOUTS)
            what = "more" if ours is None else "another tensor of the same meaning"
            raise CheckpointError(
                f"it is not of the authors' {known}, the networks that can be imported: it has {what}, {_short(name)}"
            )
        renamed[ours] = tensor
    missing = [theirs for theirs, ours in layout.modules.items() if f"{ours}.weight" not in renamed]
    if missing:
        raise CheckpointError(f"it is not of the authors' {layout.title}: {missing[0]}.weight is missing")
    if renamed["architecture.head.fc.weight"].dim() != 2:
        raise CheckpointError(f"it is not of the authors' {layout.title}: classifier.0.weight is no matrix")
    return renamed


def _load(path: Path) -> Any:
    """``torch.load`` that executes nothing. Numpy's scalars become Python numbers, its arrays are left out."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive and not zipfile.is_zipfile(path):
        raise CheckpointError(f"checkpoint {path} ({path.stat().st_size} bytes) is truncated; copy it again")
    with _allowing_only(_array_stand_ins() | numpy_scalar_stand_ins()):
        return load_checked(
            path, lambda: torch.load(path, map_location="cpu", weights_only=True), may_have_history=False
        )


@contextlib.contextmanager
def _allowing_only(stand_ins: Mapping[str, Any]) -> Iterator[None]:
    """Let ``weights_only`` allow tensors and these names alone, not what the program allows for its own files.

    With ``torch.serialization.safe_globals``, a name that is allowed already would keep either meaning, at random.
    """
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(stand_in, name) for name, stand_in in stand_ins.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _array_stand_ins() -> dict[str, Any]:
    """Stand-ins that drop arrays; a checkpoint has them in numpy's random state, which is not needed."""

    class Array:
        def __setstate__(self, state: Any) -> None:
            pass

    def reconstruct(*arguments: Any) -> Array:
        return Array()

    return {
        "numpy.ndarray": Array,
        "numpy.core.multiarray._reconstruct": reconstruct,  # numpy 1
        "numpy._core.multiarray._reconstruct": reconstruct,  # numpy 2
    }


def _check_pools(arch_pools: Any) -> dict[str, dict[float, dict[str, float]]]:
    """The pools of ``arch_pools``, with all types checked."""
    pools = arch_pools.get("pools") if isinstance(arch_pools, dict) else None
    if not isinstance(pools, dict) or not pools:
        raise CheckpointError("it has no pools: arch_pools['pools'] must be a table of metrics, targets and subnets")
    checked: dict[str, dict[float, dict[str, float]]] = {}
    for metric, targets in pools.items():
        if not isinstance(metric, str) or not metric.isidentifier() or not isinstance(targets, dict):
            raise CheckpointError(f"the pools of {_short(metric)} are not a table of targets")
        checked[metric] = {}
        for target, pool in targets.items():
            if not is_number(target) or not isinstance(pool, dict):
                raise CheckpointError(f"the pool {metric} = {_short(target)} is not a table of subnets")
            for text, score in pool.items():
                if not isinstance(text, str) or not is_number(score):
                    raise CheckpointError(
                        f"the pool {metric} = {target} has an entry that is not a text and a finite score: "
                        f"{_short(text)}: {_short(score)}"
                    )
            checked[metric][target] = {text: float(score) for text, score in pool.items()}
    return checked


def _read_subnet(text: str, layout: PSSNetLayout, space: SearchSpace) -> Subnet:
    """The subnet of ``"{'model_name': 'mobilenet_v2', 'resolution': 128, 'stage_cout_mults': [0.75, …], …}"``.

    Raises:
        CheckpointError: It is something else.
        ConfigError: It is outside the search space.
    """
    try:
        # Within this length neither numbers nor nesting can become large.
        record = ast.literal_eval(text) if len(text) <= _MAX_SUBNET_LENGTH else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise CheckpointError(f"an entry is not a table of plain values, refused: {_short(text)}")
    model = record.get("model_name")
    if model != layout.model_name:
        raise CheckpointError(
            f"an entry is of the model {_short(model)}, the weights are of {layout.model_name!r}: {_short(text)}"
        )
    multipliers, resolution = record.get("stage_cout_mults"), record.get("resolution")
    if not isinstance(multipliers, list) or len(multipliers) != layout.num_multipliers or type(resolution) is not int:
        raise CheckpointError(
            f"an entry needs {layout.num_multipliers} 'stage_cout_mults' and a whole-numbered 'resolution': "
            f"{_short(text)}"
        )
    for multiplier in multipliers:
        if not is_number(multiplier) or not 0 < multiplier <= 1:
            raise CheckpointError(f"the width multiplier {_short(multiplier)} is not in (0, 1]: {_short(text)}")
    widths = zip(layout.widths.items(), multipliers, strict=False)
    subnet = Subnet({name: make_divisible(base * m) for (name, base), m in widths} | {"resolution": resolution})
    space.encode([subnet])
    return subnet


def _short(value: Any) -> str:
    """At most 300 characters of a value, for one-line errors: a file can hold values of any length."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
