"""A small form of a subnet's predictions, kept until all images are seen and its metrics are computed."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmcls.evaluation import Accuracy, CorruptionError, MultiLabelMetric, SingleLabelMetric
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric, Evaluator

# Predictions of some images for one metric: field -> tensor (images, …), or a list with an item for each image.
_Notes = dict[str, Tensor] | list[Any]
# Most numbers of an array as metric. Confusion matrices of 1000 classes for 435 subnets would be too large.
_MAX_NUMBERS = 10_000
# Batches that are kept before they are joined: with small ones, tensor objects take more memory than numbers.
_MOST_PARTS = 32


class KeptPredictions:
    """The predictions of one subnet as its metrics need them.

    Metrics keep a record of every image, mmcls' with the scores of all classes: 4 kB for each of 50,000 images and 435
    subnets are 87 GB. Here a record loses what its metric does not use, for all metrics of mmcls but average precision,
    which needs every score, and the records of a batch become one tensor a field. At the end, records are restored
    from which the metric computes the same values. Processes exchange the small form.

    Args:
        evaluator: The metrics, of this subnet alone.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._notes: list[list[_Notes]] = [[] for _ in evaluator.metrics]

    @property
    def num_bytes(self) -> int:
        """Memory that the predictions take, roughly."""
        return sum(_count_bytes(notes) for batches in self._notes for notes in batches)

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Keep the predictions of a batch."""
        self.evaluator.process(data_samples=data_samples, data_batch=data_batch)
        for metric, batches in zip(self.evaluator.metrics, self._notes, strict=True):
            if metric.results:
                batches.append(_form_of(metric).shrink(metric, metric.results))
                metric.results.clear()
            if len(batches) > _MOST_PARTS:
                batches[:] = [_join(batches)]

    def pop_notes(self) -> list[_Notes]:
        """The predictions kept for each metric; they are removed from here."""
        popped = [_join(batches) for batches in self._notes]
        for batches in self._notes:
            batches.clear()
        return popped


def evaluate_kept_predictions(group: Sequence[KeptPredictions], size: int) -> list[dict[str, Any]]:
    """The metrics of each subnet over all images. All processes call it, with the same number of subnets.

    The n processes share the work: process r computes the metrics of the subnets r, r + n, …

    Args:
        group: The predictions of each subnet, which are removed from it.
        size: Images of the dataset; more were evaluated if the sampler repeats some to give all processes equally many.

    Returns:
        For each subnet: metric -> number; an array becomes plain lists or, if it is large, a text with its shape.

    Raises:
        ValueError: Two metrics have one name.
    """
    num_processes = get_world_size()
    computed: dict[tuple[int, int], dict[str, Any]] = {}  # by the numbers of subnet and metric
    hidden = len(group) == 1 or not is_main_process()
    progress = tqdm(total=len(group), desc="metrics", unit="subnet", disable=hidden, leave=False)
    with progress:
        for first in range(0, len(group), num_processes):
            together = range(first, min(first + num_processes, len(group)))
            own = []  # computed after all exchanges, so that no process waits for another's computation
            for subnet in together:
                for number, notes in enumerate(group[subnet].pop_notes()):
                    metric = group[subnet].evaluator.metrics[number]
                    if type(metric).evaluate is not BaseMetric.evaluate:  # it gathers by itself
                        metric.results.extend(_restore(metric, notes))
                        computed[subnet, number] = metric.evaluate(size)
                        continue
                    parts = all_gather_object(notes)
                    if subnet - first == get_rank():
                        own.append((number, metric, parts))
            for number, metric, parts in own:
                computed[first + get_rank(), number] = _compute(metric, _interleave(parts, size))
            progress.update(len(together))
    plain = {key: {name: _plain(value) for name, value in values.items()} for key, values in computed.items()}
    everyones = {key: values for of_process in all_gather_object(plain) for key, values in of_process.items()}
    return [
        _merge([everyones[subnet, number] for number in range(len(kept.evaluator.metrics))])
        for subnet, kept in enumerate(group)
    ]


def _compute(metric: BaseMetric, notes: _Notes) -> dict[str, Any]:
    """The part of ``metric.evaluate`` after gathering."""
    prefix = f"{metric.prefix}/" if metric.prefix else ""
    return {prefix + name: value for name, value in metric.compute_metrics(_restore(metric, notes)).items()}


def _merge(of_metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for own in of_metrics:
        if twice := own.keys() & values.keys():
            raise ValueError(f"two metrics of the evaluator are called {min(twice)!r}; give one of them a prefix")
        values |= own
    return values


def _plain(value: Any) -> Any:
    """A metric's value as plain JSON values; of a large array, its shape as text."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        if math.prod(value.shape) > _MAX_NUMBERS:
            return f"{tuple(value.shape)} numbers, too many to keep"
        return value.tolist()
    return value


class _Form(NamedTuple):
    """How the records of one class of metrics are shrunk, and restored so that the metric has the same value."""

    shrink: Callable[[Any, list[Any]], _Notes]
    restore: Callable[[Any, Any], list[Any]]


def _shrink_accuracy(metric: Accuracy, records: list[Any]) -> _Notes:
    """Keep the label's place among the best scores, and its score, for thresholds."""
    notes, depth = _stack(records), max(metric.topk)
    if (
        "pred_score" not in notes
        or isinstance(notes, list)
        or depth > notes["pred_score"].shape[1]
        or notes["gt_label"].shape[1] != 1
    ):
        return notes
    scores, classes = notes["pred_score"].float().topk(depth, dim=1)
    found = classes == notes["gt_label"]
    place = torch.where(found.any(dim=1), found.int().argmax(dim=1), depth)
    label_score = scores.gather(1, place.clamp(max=depth - 1)[:, None]).squeeze(1)
    return {"place": place.to(torch.int16), "label_score": label_score}


def _restore_accuracy(metric: Accuracy, notes: _Notes) -> list[Any]:
    """Scores of ``depth + 1`` classes with the label at its place, which is also its class number."""
    if isinstance(notes, list) or "place" not in notes:
        return _unstack(notes)
    depth = max(metric.topk)
    place = notes["place"].long()[:, None]
    columns = torch.arange(depth + 1)
    better = torch.tensor(torch.inf)
    scores = torch.where(columns < place, better, torch.where(columns == place, notes["label_score"][:, None], -better))
    return _unstack({"pred_score": scores, "gt_label": place})


def _shrink_corruption_error(metric: CorruptionError, records: list[Any]) -> _Notes:
    """As for an accuracy, with the other fields: the path of an image says which corruption it has."""
    scores = [{key: record[key].cpu() for key in ("pred_score", "gt_label") if key in record} for record in records]
    small = _restore_accuracy(metric, _shrink_accuracy(metric, scores))
    # A clone has a storage of its own: pickle writes whole storages.
    return [{**r, **{key: value.clone() for key, value in own.items()}} for r, own in zip(records, small, strict=True)]


def _shrink_single_label(metric: SingleLabelMetric, records: list[Any]) -> _Notes:
    """Keep the best class and its score."""
    notes = _stack(records)
    if isinstance(notes, list) or "pred_score" not in notes:
        return notes
    scores, classes = notes["pred_score"].topk(1, dim=1)
    count = torch.full_like(classes[:, 0], notes["pred_score"].shape[1])
    return {"score": scores[:, 0], "class": classes[:, 0], "num_classes": count, "gt_label": notes["gt_label"]}


def _restore_single_label(metric: SingleLabelMetric, notes: _Notes) -> list[Any]:
    if isinstance(notes, list) or "class" not in notes:
        return _unstack(notes)
    scores = torch.full((len(notes["class"]), int(notes["num_classes"][0])), -torch.inf)
    scores.scatter_(1, notes["class"][:, None], notes["score"][:, None].float())
    return _unstack({"pred_score": scores, "gt_label": notes["gt_label"]})


def _shrink_multi_label(metric: MultiLabelMetric, records: list[Any]) -> list[Any]:
    """Keep the classes that count as predicted, and the labels that are not 0."""
    scores, labels = (torch.stack([record[key] for record in records]).cpu() for key in ("pred_score", "gt_score"))
    if metric.thr is not None:
        predicted = scores >= metric.thr
    else:
        predicted = torch.zeros_like(scores, dtype=torch.bool).scatter_(
            1, scores.topk(metric.topk, dim=1).indices, True
        )
    return [
        (len(row), row.nonzero()[:, 0].to(torch.int32).numpy(), label.to_sparse())
        for row, label in zip(predicted, labels, strict=True)
    ]


def _restore_multi_label(metric: MultiLabelMetric, notes: list[Any]) -> list[dict[str, Tensor]]:
    records = []
    for num_classes, predicted, label in notes:
        scores = torch.full((num_classes,), -torch.inf)
        scores[torch.from_numpy(predicted).long()] = torch.inf
        records.append({"pred_score": scores, "gt_score": label.to_dense()})
    return records


_FORMS: dict[type[BaseMetric], _Form] = {
    Accuracy: _Form(_shrink_accuracy, _restore_accuracy),
    SingleLabelMetric: _Form(_shrink_single_label, _restore_single_label),
    MultiLabelMetric: _Form(_shrink_multi_label, _restore_multi_label),
    CorruptionError: _Form(_shrink_corruption_error, lambda metric, notes: _unstack(notes)),
}
_AS_IT_IS = _Form(lambda metric, records: _stack(records), lambda metric, notes: _unstack(notes))


def _form_of(metric: BaseMetric) -> _Form:
    """The form that fits a metric's methods: a subclass with other methods may use more of a record."""
    for kind, form in _FORMS.items():
        if type(metric).compute_metrics is kind.compute_metrics and type(metric).calculate is kind.calculate:
            return form
    return _AS_IT_IS


def _restore(metric: BaseMetric, notes: _Notes) -> list[Any]:
    return _form_of(metric).restore(metric, notes) if notes else []  # no image at all


def _stack(records: Sequence[Any]) -> _Notes:
    """Records as one CPU tensor a field, if all have the same fields, with tensors of one shape; else as they are."""
    first = records[0]
    if not (isinstance(first, dict) and all(isinstance(r, dict) and r.keys() == first.keys() for r in records)):
        return list(records)
    notes = {}
    for key, value in first.items():
        column = [record[key] for record in records]
        if not all(isinstance(v, Tensor) and v.shape == value.shape and v.dtype == value.dtype for v in column):
            return list(records)
        notes[key] = torch.stack(column).cpu()
    return notes


def _unstack(notes: _Notes) -> list[Any]:
    if isinstance(notes, list):
        return notes
    columns = {key: value.unbind() for key, value in notes.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _join(batches: Sequence[_Notes]) -> _Notes:
    """The notes of all batches one after another."""
    if all(isinstance(notes, dict) and notes.keys() == batches[0].keys() for notes in batches):  # type: ignore[union-attr]
        return {key: torch.cat([notes[key] for notes in batches]) for key in batches[0]} if batches else []  # type: ignore
    return [record for notes in batches for record in _unstack(notes)]


def _interleave(parts: Sequence[_Notes], size: int) -> _Notes:
    """The processes' notes in the order of the dataset, without repeated ones; process r has the images r, r + n, …"""
    lengths = [len(next(iter(part.values()))) if isinstance(part, dict) else len(part) for part in parts]
    ranks = np.repeat(np.arange(len(parts)), lengths)
    order = np.lexsort((ranks, np.concatenate([np.arange(length) for length in lengths])))[:size]
    joined = _join([part for part, length in zip(parts, lengths, strict=True) if length])
    if isinstance(joined, dict):
        return {key: value[torch.from_numpy(order)] for key, value in joined.items()}
    return [joined[position] for position in order]


def _count_bytes(notes: _Notes) -> int:
    if isinstance(notes, dict):
        return sum(tensor.nbytes for tensor in notes.values())
    return len(pickle.dumps(notes))
