"""What would fail after the long work is found before it."""

from __future__ import annotations

import copy

import pytest
import torch

from pss_razor.core import ConfigError, DataError
from pss_razor.evaluation.random_state import get_random_state

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

THREE = {
    "model.architecture.head.num_classes": 3,
    **{f"{part}_dataloader.dataset.type": "ThreeDigits" for part in ("train", "val", "test")},
}


@METRICS.register_module()
class LogLoss(BaseMetric):
    """A metric of which less is better, with one that is no number besides."""

    default_prefix = "loss"

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            score = sample["pred_label"]["score"][sample["gt_label"]["label"]]
            self.results.append(-score.log())

    def compute_metrics(self, results):
        losses = torch.cat(results)
        return {"quartiles": losses.quantile(torch.tensor([0.25, 0.5, 0.75])), "mean": losses.mean().item()}


@pytest.fixture(scope="module", autouse=True)
def three_digits():
    """Digits of three classes only."""
    from pss_razor.datasets import Digits
    from pss_razor.registry import DATASETS

    @DATASETS.register_module()
    class ThreeDigits(Digits):
        METAINFO = {"classes": ("zero", "one", "two")}

        def load_data_list(self):
            return [sample for sample in super().load_data_list() if sample["gt_label"] < 3]

    yield
    DATASETS._module_dict.pop("ThreeDigits")


def never(*args, **kwargs):
    raise AssertionError("the training started")


def fails_before_training(runner, monkeypatch, error, match):
    monkeypatch.setattr(type(runner.model), "train_step", never)
    with pytest.raises(error, match=match):
        runner.train()


def test_top_k_of_more_classes_than_there_are(make_runner, tmp_path, monkeypatch):
    match = r"val_evaluator cannot be computed: Top-5 .* categories is 3\..* Set val_evaluator\.topk=\(1,\)"
    fails_before_training(make_runner(tmp_path / "a", THREE), monkeypatch, ConfigError, match)
    match = r"test_evaluator cannot be computed: Top-5"
    with pytest.raises(ConfigError, match=match):
        make_runner(tmp_path / "b", THREE).test()


@pytest.mark.parametrize("part", ["train", "val"])
def test_images_of_another_size_than_the_largest_resolution(make_runner, tmp_path, monkeypatch, part):
    crop = [dict(type="mmcls.Resize", scale=48), dict(type="mmcls.PackClsInputs")]
    runner = make_runner(tmp_path, {f"{part}_dataloader.dataset.pipeline": crop})
    match = rf"{part}_dataloader: its pipeline makes images of 48 x 48 pixels.*resolutions is 32"
    fails_before_training(runner, monkeypatch, ConfigError, match)


def test_a_metric_that_decides_but_is_not_reported(make_runner, tmp_path, monkeypatch):
    runner = make_runner(tmp_path, {"val_cfg.decided_by": "accuracy/top2"})
    fails_before_training(runner, monkeypatch, ConfigError, r"decided_by = 'accuracy/top2'.*'accuracy/top1'")
    runner = make_runner(tmp_path, {"val_evaluator": dict(type="mmcls.ConfusionMatrix")})
    fails_before_training(runner, monkeypatch, ConfigError, "no metric is a number")
    runner = make_runner(tmp_path, {"val_cfg.rule": "smaller"})
    fails_before_training(runner, monkeypatch, ConfigError, "rule = 'smaller'")


def test_selection_images_of_other_classes(make_runner, tmp_path, straight):
    config = make_runner(tmp_path / "a").cfg
    selection = copy.deepcopy(config.val_dataloader)
    selection.dataset.type = "ThreeDigits"
    with pytest.raises(DataError, match=r"test_cfg\.selection_dataloader: the dataset has 3 classes, the head 10"):
        make_runner(tmp_path / "b", {"test_cfg": {**config.test_cfg, "selection_dataloader": selection}}).test()


def test_the_check_changes_nothing(make_runner, tmp_path, assert_same):
    runner = make_runner(tmp_path)
    runner.model.train()
    before = copy.deepcopy((runner.model.state_dict(), get_random_state(), runner.model.mutator.active_subnet))
    runner.build_test_loop(runner._test_loop)
    assert runner.model.training and runner.model.mutator.active_subnet == before[2]
    assert_same(dict(before[0]), dict(runner.model.state_dict()))
    assert_same(before[1], get_random_state())


def test_another_metric_decides_and_less_is_better(make_runner, straight, tmp_path):
    options = {
        "load_from": str(straight / "epoch_3.pth"),
        "test_evaluator": [dict(type="LogLoss"), dict(type="mmcls.Accuracy")],
        "test_cfg.decided_by": "loss/mean",
        "test_cfg.rule": "less",
    }
    runner = make_runner(tmp_path, options)
    metrics = runner.test()
    loop = runner.test_loop
    assert all(len(record.metrics["loss/quartiles"]) == 3 for record in loop.results)
    for key in {(r.metric, r.target) for r in loop.results if r.metric}:
        losses = [r.metrics["loss/mean"] for r in loop.results if (r.metric, r.target) == key]
        assert metrics[f"{key[0]}_{key[1]}/loss/mean"] == min(losses)
    assert not any("quartiles" in name for name in metrics)
    assert (tmp_path / "accuracy_flops.png").stat().st_size > 1000
