"""What is kept of predictions gives the metrics that mmengine's evaluator computes from whole records."""

from __future__ import annotations

import copy
import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pss_razor.evaluation import kept_predictions
from pss_razor.evaluation.kept_predictions import KeptPredictions, evaluate_kept_predictions
from pss_razor.evaluation.one_pass import evaluate_in_one_pass

from mmcls.evaluation import Accuracy
from mmcls.structures import ClsDataSample
from mmengine.evaluator import Evaluator

METRICS = [
    dict(type="mmcls.Accuracy", topk=(1, 5)),
    dict(type="mmcls.Accuracy", topk=3, thrs=(0.0, 0.3, None)),
    dict(type="mmcls.SingleLabelMetric", items=("precision", "recall", "f1-score", "support")),
    dict(type="mmcls.SingleLabelMetric", thrs=(None, 0.5), average="micro"),
    dict(type="mmcls.SingleLabelMetric", average=None),
    dict(type="mmcls.ConfusionMatrix"),
    dict(type="mmcls.MultiLabelMetric", thr=0.3),
    dict(type="mmcls.MultiLabelMetric", topk=2, average=None),
    dict(type="mmcls.CorruptionError"),
    dict(type="mmcls.VOCMultiLabelMetric", thr=0.3),
    dict(type="mmcls.AveragePrecision"),
    dict(type="mmcls.VOCAveragePrecision"),
    dict(type="mmcls.RetrievalRecall", topk=(1, 3)),
    [dict(type="mmcls.Accuracy"), dict(type="mmcls.ConfusionMatrix")],
]


def make_predictions(images, classes, seed=0):
    """Data samples with softmax scores. Some are saturated, so that many classes share the score 0."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = torch.tensor([1.0, 5.0, 500.0])[torch.arange(images) % 3, None]
    scores = (torch.randn(images, classes, generator=generator) * sharpness).softmax(dim=1)
    labels = torch.randint(classes, (images,), generator=generator)
    labels[::2] = scores[::2].argmax(dim=1)
    samples = [
        ClsDataSample().set_pred_score(score).set_pred_label(score.argmax(0, keepdim=True)).set_gt_label(int(label))
        for score, label in zip(scores, labels, strict=True)
    ]
    for number, sample in enumerate(samples):
        corruption = ("snow", "fog", "frost")[number % 3]
        sample.set_metainfo({"img_path": f"data/imagenet-c/val/{corruption}/1.png", "gt_label_difficult": [number % 4]})
    return samples


def plain(value):
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("metrics", METRICS, ids=str)
def test_metrics_are_mmengines(metrics):
    samples = make_predictions(90, 12)
    evaluator, kept = Evaluator(copy.deepcopy(metrics)), KeptPredictions(Evaluator(copy.deepcopy(metrics)))
    for start in range(0, 90, 32):
        evaluator.process(copy.deepcopy(samples[start : start + 32]))
        kept.process(None, copy.deepcopy(samples[start : start + 32]))
    # The last images are repeated ones.
    expected = {name: plain(value) for name, value in evaluator.evaluate(85).items()}
    found = evaluate_kept_predictions([kept], 85)[0]
    assert found == pytest.approx(expected, abs=1e-4) if all(map(is_float, expected.values())) else found == expected
    assert found.keys() == expected.keys() and kept.num_bytes == 0


def is_float(value):
    return isinstance(value, float)


@pytest.mark.parametrize("metrics", METRICS[:10], ids=str)
def test_what_is_kept_does_not_grow_with_the_classes(metrics):
    sizes = []
    for classes in (20, 1000):
        kept = KeptPredictions(Evaluator(copy.deepcopy(metrics)))
        kept.process(None, make_predictions(64, classes))
        sizes.append(kept.num_bytes)
    assert sizes[1] <= 1.1 * sizes[0]
    assert all(not metric.results for metric in kept.evaluator.metrics)


def test_memory_of_an_accuracy_is_some_bytes_an_image():
    kept = KeptPredictions(Evaluator(dict(type="mmcls.Accuracy", topk=(1, 5))))
    batch = make_predictions(100, 1000)
    kept.process(None, batch)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        kept.process(None, batch)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # 6 bytes an image are the tensors'; the objects around them, which tracemalloc sees, are one pair a batch.
    assert kept.num_bytes == 6 * 100 * 21 and grown < 20 * 2000
    # The final test of MobileNetV1-M: 87 pools of 5, 50,000 images.
    assert kept.num_bytes / 2100 * 435 * 50_000 < 2**30


def test_memory_does_not_depend_on_the_batch_size():
    sizes = []
    for batch_size in (1, 50):
        kept = KeptPredictions(Evaluator(dict(type="mmcls.Accuracy", topk=(1, 5))))
        samples = make_predictions(400, 12)
        for start in range(0, 400, batch_size):
            kept.process(None, samples[start : start + batch_size])
        assert len(kept._notes[0]) <= 33
        sizes.append(kept.num_bytes)
        assert evaluate_kept_predictions([kept], 400)[0] == kept_predictions_of(samples)
    assert sizes[0] == sizes[1] == 6 * 400


def kept_predictions_of(samples):
    evaluator = Evaluator(dict(type="mmcls.Accuracy", topk=(1, 5)))
    evaluator.process(copy.deepcopy(samples))
    return evaluator.evaluate(len(samples))


@pytest.fixture
def run_together(monkeypatch):
    """Run a function as each of several processes, in threads: ``run_together(function of the rank, processes)``."""

    def run(function, processes):
        own = threading.local()
        slots, barrier = [None] * processes, threading.Barrier(processes, timeout=60)

        def all_gather_object(data):
            slots[own.rank] = pickle.dumps(data)
            barrier.wait()
            gathered = [pickle.loads(part) for part in slots]
            barrier.wait()
            return gathered

        def process(rank):
            own.rank = rank
            return function(rank)

        monkeypatch.setattr(kept_predictions, "all_gather_object", all_gather_object)
        monkeypatch.setattr(kept_predictions, "get_rank", lambda: own.rank)
        monkeypatch.setattr(kept_predictions, "get_world_size", lambda: processes)
        monkeypatch.setattr(kept_predictions, "is_main_process", lambda: own.rank == 0)
        with ThreadPoolExecutor(processes) as pool:
            return list(pool.map(process, range(processes)))

    return run


@pytest.mark.parametrize("subnets", [1, 3, 7])
def test_processes_share_the_work_and_have_the_same_metrics(run_together, monkeypatch, subnets):
    """Three processes, each with every third image; the last image is repeated once."""
    metrics = [dict(type="mmcls.Accuracy", topk=(1, 5)), dict(type="mmcls.RetrievalRecall", topk=1)]
    samples = [make_predictions(20, 12, seed=subnet) for subnet in range(subnets)]
    computed = [0, 0, 0]
    original = kept_predictions._compute

    def compute(metric, notes):
        computed[kept_predictions.get_rank()] += 1
        return original(metric, notes)

    monkeypatch.setattr(kept_predictions, "_compute", compute)

    def process(rank):
        group = [KeptPredictions(Evaluator(copy.deepcopy(metrics))) for _ in range(subnets)]
        for kept, of_subnet in zip(group, samples, strict=True):
            dealt = of_subnet[rank::3] + (of_subnet[:1] if rank == 2 else [])
            for start in (0, 4):
                kept.process(None, copy.deepcopy(dealt[start : start + 4]))
        return evaluate_kept_predictions(group, 20)

    found = run_together(process, 3)
    assert found[0] == found[1] == found[2]
    for of_subnet, values in zip(samples, found[0], strict=True):
        evaluator = Evaluator(copy.deepcopy(metrics))
        evaluator.process(copy.deepcopy(of_subnet))
        assert values == pytest.approx(evaluator.evaluate(20), abs=1e-4)
        assert values.keys() == {"accuracy/top1", "accuracy/top5", "retrieval/Recall@1"}
    # Two metrics of each subnet, each computed once.
    assert computed == [2 * len(range(rank, subnets, 3)) for rank in range(3)]


def test_a_metric_that_gathers_by_itself_is_computed_by_all(run_together):
    """One of mmengine's users' own kind: its ``evaluate`` is called in every process, with the process' own records."""
    seen = []

    class Gathers(Accuracy):
        def evaluate(self, size):
            seen.append(len(self.results))
            return {"own/size": size}

    def process(rank):
        group = [KeptPredictions(Evaluator([Gathers()])) for _ in range(3)]
        for kept in group:
            kept.process(None, make_predictions(2 + rank, 12))
        return evaluate_kept_predictions(group, 5)

    assert run_together(process, 2) == [[{"own/size": 5}] * 3] * 2
    assert sorted(seen) == [2] * 3 + [3] * 3


def test_notes_come_in_the_order_of_the_dataset():
    parts = [["0", "3", "6"], ["1", "4"], ["2", "5"]]
    assert kept_predictions._interleave(parts, 7) == list("0123456")
    tensors = [{"x": torch.tensor([0, 3])}, {"x": torch.tensor([1, 4])}, {"x": torch.tensor([2, 0])}]
    assert kept_predictions._interleave(tensors, 5)["x"].tolist() == [0, 1, 2, 3, 4]


def test_two_metrics_of_one_name():
    kept = KeptPredictions(Evaluator([dict(type="mmcls.Accuracy"), dict(type="mmcls.Accuracy")]))
    kept.process(None, make_predictions(4, 12))
    with pytest.raises(ValueError, match="two metrics of the evaluator are called 'accuracy/top1'"):
        evaluate_kept_predictions([kept], 4)[0]


class Hooks:
    """A runner as far as the evaluation calls it."""

    def __init__(self):
        self.calls = []

    def call_hook(self, name, **kwargs):
        self.calls.append(name)


@pytest.mark.parametrize(("room", "passes"), [(2**30, 1), (30_000, 2), (1, 5)])
def test_networks_are_evaluated_in_groups_where_memory_is_short(room, passes):
    # Average precision needs every score: 48 images of 12 classes and 4 + 8 bytes are 6912 for each network.
    samples = {network: make_predictions(48, 12, seed=network) for network in range(5)}
    loader = torch.utils.data.DataLoader(range(48), batch_size=16)
    evaluator = Evaluator(dict(type="mmcls.AveragePrecision"))
    seen = []

    def predict(network, data):
        seen.append((network, int(data["first"])))
        return copy.deepcopy(samples[network][int(data["first"]) : int(data["first"]) + 16])

    runner = Hooks()
    found = evaluate_in_one_pass(5, predict, lambda b: {"first": b[0]}, loader, evaluator, runner, "test", room)
    assert sorted(set(seen)) == sorted(seen) and len(seen) == 15  # each network on each batch, once
    assert runner.calls == ["before_test_iter", "after_test_iter"] * 3 * passes
    for network in range(5):
        whole = Evaluator(dict(type="mmcls.AveragePrecision"))
        whole.process(copy.deepcopy(samples[network]))
        assert found[network] == pytest.approx(whole.evaluate(48), abs=1e-4)
