"""Options of the hook: what a pool learns, and scoring anew on held-out images."""

import pytest
import torch
from torch.nn import functional as F

from pss_razor.core import ConfigError, DataError
from pss_razor.engine import PrioritizedPoolSamplerHook
from pss_razor.evaluation.checks import get_algorithm
from pss_razor.evaluation.held_out_scores import load_held_out_images, score_on

from mmengine.hooks import Hook

HELD_OUT = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(
        type="Digits",
        split="train",
        indices=-40,
        pipeline=[dict(type="mmcls.Resize", scale=32), dict(type="mmcls.PackClsInputs")],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
RESCORED = {
    "default_hooks.subnet_sampler.score": "held_out",
    "default_hooks.subnet_sampler.scoring_dataloader": HELD_OUT,
    "default_hooks.subnet_sampler.rescoring": [
        dict(at=0.3, images=16, fresh=3, keep=2),
        dict(at=0.6, images=32, fresh=1, keep=1),
    ],
    "val_cfg": None,
    "val_dataloader": None,
    "val_evaluator": None,
}


@pytest.fixture(scope="module")
def rescored(make_runner, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("rescored")
    runner = make_runner(work_dir, RESCORED)
    runner.train()
    return runner, work_dir


def pools_of(checkpoint):
    state = torch.load(checkpoint, weights_only=True)["pss"]
    pools = [pool for of_metric in state["pools"].values() for pool in of_metric.values()]
    return state["rescored"], pools


def test_pools_change_only_when_they_are_scored_anew(rescored):
    _, work_dir = rescored
    # Before epochs 2 and 3 of three: a third and two thirds of the training.
    (first, empty), (second, two), (third, one) = (pools_of(work_dir / f"epoch_{n}.pth") for n in (1, 2, 3))
    assert (first, second, third) == (0, 1, 2)
    assert {len(pool) for pool in empty} == {0}
    assert {len(pool) for pool in two} == {2}
    assert {len(pool) for pool in one} == {1}


@pytest.mark.parametrize("epoch", [1, 2])
def test_resumed_equals_never_stopped(rescored, make_runner, tmp_path, assert_same_training, epoch):
    _, work_dir = rescored
    options = {"load_from": str(work_dir / f"epoch_{epoch}.pth"), "resume": True, **RESCORED}
    make_runner(tmp_path, options).train()
    assert_same_training(work_dir / "epoch_3.pth", tmp_path / "epoch_3.pth")


def test_scores_are_those_of_the_model_in_training_mode(rescored):
    runner, _ = rescored
    algorithm = get_algorithm(runner)
    images, labels = load_held_out_images(algorithm, runner.build_dataloader(HELD_OUT), 24, seed=3)
    subnets = [algorithm.space.smallest, algorithm.space.largest]
    before = {name: value.clone() for name, value in algorithm.state_dict().items()}
    scores = score_on(algorithm, subnets, images, labels)
    assert all(torch.equal(value, before[name]) for name, value in algorithm.state_dict().items())
    for module in algorithm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    algorithm.train()
    for subnet, score in zip(subnets, scores, strict=True):
        algorithm.mutator.activate(subnet)
        with torch.no_grad():
            assert score == pytest.approx(-float(F.cross_entropy(algorithm(images, mode="tensor"), labels)), rel=1e-5)


def test_held_out_images_are_distinct_and_follow_the_seed(rescored):
    runner, _ = rescored
    algorithm, loader = get_algorithm(runner), runner.build_dataloader(HELD_OUT)
    first, again, other = (load_held_out_images(algorithm, loader, 24, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    everything, labels = load_held_out_images(algorithm, loader, 40, seed=1)
    assert len(everything.flatten(1).unique(dim=0)) == len(labels) == 40


class RecordScores(Hook):
    priority = "LOWEST"

    def __init__(self):
        self.relative = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.relative.append(float(outputs["largest_ce"] + outputs["score"]))


def test_relative_scores(make_runner, tmp_path, get_sampler):
    options = {"default_hooks.subnet_sampler.score": "relative", "train_cfg.max_epochs": 1}
    runner = make_runner(tmp_path, {**options, **{key: None for key in RESCORED if key.startswith("val")}})
    record = RecordScores()
    runner.register_hook(record)
    runner.train()
    entries = [entry for pool in get_sampler(runner).pools.values() for entry in pool]
    once = [entry.score for entry in entries if entry.visits == 1]
    assert once
    assert all(any(score == pytest.approx(known, abs=1e-5) for known in record.relative) for score in once)


def test_few_visits_are_reported(make_runner, tmp_path, caplog):
    make_runner(tmp_path, {"train_cfg.max_epochs": 1, **{k: None for k in RESCORED if k.startswith("val")}}).train()
    log = next(tmp_path.rglob("*.log")).read_text()
    assert "pools can expect fewer than 200 visits in 6 steps" in log


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(p_explore=0.5), "p_explore = 0.5 must be two positive numbers"),
        (dict(score="accuracy"), "score = 'accuracy' is not known"),
        (dict(score="held_out"), "needs rescoring"),
        (dict(rescoring=[dict(at=0.5, images=8)]), "belong together"),
        (dict(scoring_dataloader=HELD_OUT), "belong together"),
        (dict(rescoring=[dict(at=2, images=8)], scoring_dataloader=HELD_OUT), "at = 2"),
        (dict(target_power="space"), "target_power = 'space' must be a number"),
        (dict(target_power=(0, 1, 2)), "must be a number, or two"),
        (dict(need=0.5), "need = 0.5 must be a number of at least 1"),
        (dict(min_distance=-1), "min_distance = -1"),
    ],
)
def test_what_cannot_work(options, says):
    with pytest.raises(ConfigError, match=says):
        PrioritizedPoolSamplerHook(**options)


def test_too_few_held_out_images(make_runner, tmp_path):
    rescoring = [dict(at=0.3, images=41)]
    runner = make_runner(tmp_path, {**RESCORED, "default_hooks.subnet_sampler.rescoring": rescoring})
    with pytest.raises(DataError, match="has 40 images, a rescoring asks for images = 41"):
        runner.train()
