from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from pss_razor.evaluation.kept_predictions import KeptPredictions, evaluate_kept_predictions

from mmcls.structures import ClsDataSample
from mmengine.evaluator import Evaluator


def make_samples(logits, labels):
    return [
        ClsDataSample().set_pred_score(row.softmax(0)).set_gt_label(int(label))
        for row, label in zip(logits, labels, strict=True)
    ]


def test_is_torchs_cross_entropy():
    logits, labels = torch.randn(70, 12) * 4, torch.randint(12, (70,))
    metrics = [dict(type="mmcls.Accuracy", topk=1), dict(type="CrossEntropy")]
    evaluator, kept = Evaluator(metrics), KeptPredictions(Evaluator(metrics))
    for start in range(0, 70, 32):
        samples = make_samples(logits[start : start + 32], labels[start : start + 32])
        evaluator.process([sample.to_dict() for sample in samples])
        kept.process(None, [sample.to_dict() for sample in samples])
    expected = float(cross_entropy(logits[:65].double(), labels[:65]))
    assert kept.num_bytes < 70 * 12  # 4 bytes of it and 6 of the accuracy an image, whatever the classes
    assert evaluate_kept_predictions([kept], 65)[0]["loss/cross_entropy"] == pytest.approx(expected, rel=1e-5)
    assert evaluator.evaluate(65)["loss/cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_a_probability_of_zero_is_finite():
    kept = KeptPredictions(Evaluator([dict(type="CrossEntropy")]))
    kept.process(None, [s.to_dict() for s in make_samples(torch.tensor([[0.0, 500.0]]), [0])])
    assert evaluate_kept_predictions([kept], 1)[0]["loss/cross_entropy"] == pytest.approx(87.3, abs=0.05)


def test_several_labels_are_an_error():
    sample = ClsDataSample().set_pred_score(torch.tensor([0.5, 0.5])).set_gt_label([0, 1]).to_dict()
    with pytest.raises(ValueError, match="one label an image, not 2"):
        Evaluator([dict(type="CrossEntropy")]).process([sample])
