"""What is kept of predictions gives the metrics that mmengine's evaluator computes from whole records."""

from __future__ import annotations

import copy
import tracemalloc

import pytest
import torch

from pss_razor.engine import kept_predictions
from pss_razor.engine.kept_predictions import KeptPredictions
from pss_razor.engine.one_pass import evaluate_in_one_pass

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
    found = kept.evaluate(85)
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
        assert kept.evaluate(400) == kept_predictions_of(samples)
    assert sizes[0] == sizes[1] == 6 * 400


def kept_predictions_of(samples):
    evaluator = Evaluator(dict(type="mmcls.Accuracy", topk=(1, 5)))
    evaluator.process(copy.deepcopy(samples))
    return evaluator.evaluate(len(samples))


def test_the_first_process_decides_nothing_alone(monkeypatch):
    """Three processes, each with every third image; the last image is repeated once."""
    samples = make_predictions(20, 12)
    dealt = [samples[rank::3] for rank in range(3)]
    dealt[2].append(samples[0])
    metrics = [dict(type="mmcls.Accuracy", topk=(1, 5)), dict(type="mmcls.RetrievalRecall", topk=1)]
    processes = [KeptPredictions(Evaluator(copy.deepcopy(metrics))) for _ in range(3)]
    for kept, own in zip(processes, dealt, strict=True):
        for start in (0, 4):
            kept.process(None, copy.deepcopy(own[start : start + 4]))
    notes = [[kept_predictions._join(batches) for batches in kept._notes] for kept in processes]
    for number, expected in enumerate(({"accuracy/top1", "accuracy/top5"}, {"retrieval/Recall@1"})):
        monkeypatch.setattr(
            kept_predictions, "all_gather_object", lambda own, number=number: [part[number] for part in notes]
        )
        metric = processes[0].evaluator.metrics[number]
        found = kept_predictions._evaluate(metric, notes[0][number], 20)
        evaluator = Evaluator(copy.deepcopy(metrics[number]))
        evaluator.process(copy.deepcopy(samples))
        assert found == pytest.approx(evaluator.evaluate(20), abs=1e-4) and found.keys() == expected


def test_notes_come_in_the_order_of_the_dataset():
    parts = [["0", "3", "6"], ["1", "4"], ["2", "5"]]
    assert kept_predictions._interleave(parts, 7) == list("0123456")
    tensors = [{"x": torch.tensor([0, 3])}, {"x": torch.tensor([1, 4])}, {"x": torch.tensor([2, 0])}]
    assert kept_predictions._interleave(tensors, 5)["x"].tolist() == [0, 1, 2, 3, 4]


def test_two_metrics_of_one_name():
    kept = KeptPredictions(Evaluator([dict(type="mmcls.Accuracy"), dict(type="mmcls.Accuracy")]))
    kept.process(None, make_predictions(4, 12))
    with pytest.raises(ValueError, match="two metrics of the evaluator are called 'accuracy/top1'"):
        kept.evaluate(4)


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
