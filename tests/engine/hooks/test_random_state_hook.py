"""Random numbers of processes, and a training with a plain model that validates and is resumed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pss_razor.core import CheckpointError
from pss_razor.engine.hooks import random_state_hook
from pss_razor.evaluation.random_state import get_random_state, seed_generators

from mmengine.hooks import Hook
from mmrazor.models.mutators import NasMutator

TESTS = Path(__file__).parents[2]
RETRAINING, SUPERNET = TESTS / "tiny" / "tiny_retraining.py", TESTS / "tiny" / "tiny_spos.py"
PARTS = ("state_dict", "optimizer", "param_schedulers", "random_state")


class Images(Hook):
    """The images of every epoch, as augmentation has left them, and the active subnet of every iteration."""

    priority = "LOW"

    def __init__(self):
        self.epochs, self.subnets = {}, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.epochs.setdefault(runner.epoch, []).append(torch.stack(list(data_batch["inputs"])))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        mutator = getattr(runner.model, "mutator", None)
        if mutator is not None:
            self.subnets.append(dict(mutator.active_subnet))


def train(make_runner, work_dir, path, **options):
    runner, images = make_runner(work_dir, options, path), Images()
    runner.register_hook(images)
    runner.train()
    return images


@pytest.fixture(scope="module")
def cream_retraining(tmp_path_factory):
    """The digits config of Cream's retraining, with averaged weights; a path for it to train is made up."""
    folder = tmp_path_factory.mktemp("cream")
    config = TESTS.parent / "configs" / "nas" / "cream" / "cream_subnet_digits.py"
    (folder / "tiny.py").write_text(
        f"""
_base_ = {str(config)!r}
model = dict(_delete_=True, **_base_.classifier)
model["backbone"] = dict(type="mmrazor.CreamMobileNet", arch=[[0], [0], [0], [0], [0], [0], [0]], input_size=32)
train_dataloader = dict(batch_size=16, dataset=dict(indices=48))
val_dataloader = dict(batch_size=24, dataset=dict(indices=24))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1), ema=dict(momentum=0.5))
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
"""
    )
    return folder / "tiny.py"


def assert_resumes_exactly(make_runner, assert_same, tmp_path, path, last, parts, **options):
    straight = train(make_runner, tmp_path / "straight", path, **options)
    start = {"load_from": str(tmp_path / "straight" / "epoch_1.pth"), "resume": True}
    resumed = train(make_runner, tmp_path / "resumed", path, **start, **options)
    one, other = (
        torch.load(tmp_path / name / f"epoch_{last}.pth", weights_only=True) for name in ("straight", "resumed")
    )
    assert_same({part: one[part] for part in parts}, {part: other[part] for part in parts})
    assert_same(straight.epochs[last - 1], resumed.epochs[last - 1])
    return straight, resumed


@pytest.mark.slow
class TestResume:
    def test_spos_retraining_that_validates(self, make_runner, assert_same, tmp_path):
        assert_resumes_exactly(make_runner, assert_same, tmp_path, RETRAINING, 3, PARTS)

    def test_cream_retraining_that_validates(self, make_runner, assert_same, tmp_path, cream_retraining):
        parts = (*PARTS, "ema_state_dict")
        assert_resumes_exactly(make_runner, assert_same, tmp_path, cream_retraining, 2, parts)

    def test_a_best_checkpoint_resumes_as_that_of_its_epoch(self, make_runner, assert_same, tmp_path):
        """mmengine writes it in the middle of validation."""
        options = {"default_hooks.checkpoint.save_best": "accuracy/top1", "train_cfg.max_epochs": 1}
        train(make_runner, tmp_path, RETRAINING, **options)
        (best,) = tmp_path.glob("best_*.pth")
        one, other = (torch.load(path, weights_only=True) for path in (best, tmp_path / "epoch_1.pth"))
        assert_same(one["random_state"], other["random_state"])

    def test_validating_or_not_makes_no_difference(self, make_runner, assert_same, tmp_path):
        train(make_runner, tmp_path / "with", RETRAINING)
        train(make_runner, tmp_path / "without", RETRAINING, val_cfg=None, val_dataloader=None, val_evaluator=None)
        one, other = (torch.load(tmp_path / n / "epoch_3.pth", weights_only=True) for n in ("with", "without"))
        assert_same({part: one[part] for part in PARTS}, {part: other[part] for part in PARTS})

    def test_spos_supernet(self, make_runner, assert_same, tmp_path):
        """Images and paths are those of the training that never stopped."""
        straight, resumed = assert_resumes_exactly(make_runner, assert_same, tmp_path, SUPERNET, 2, PARTS)
        assert straight.subnets[6:] == resumed.subnets
        assert len({tuple(subnet.items()) for subnet in straight.subnets}) > 6

    def test_weights_of_another_subnet_are_refused(self, make_runner, tmp_path):
        """mmengine would start from the weights that happen to fit."""
        train(make_runner, tmp_path, RETRAINING, **{"train_cfg.max_epochs": 1})
        options = {"load_from": str(tmp_path / "epoch_1.pth"), "resume": True}
        options["model.fix_subnet"] = {"backbone.layers.0.0": {"chosen": "shuffle_7x7"}}
        with pytest.raises(CheckpointError, match=r"another model: backbone\.layers\.0\.0\._candidates.*fix_subnet"):
            train(make_runner, tmp_path, RETRAINING, **options)


class TestProcesses:
    @pytest.fixture(scope="class")
    def spos(self, make_runner, tmp_path_factory):
        return make_runner(tmp_path_factory.mktemp("spos"), {}, SUPERNET).model

    @pytest.fixture
    def start(self, monkeypatch):
        """``start(rank, model)``: the random states of a rank as its training starts; mmengine seeds all alike."""

        def start(rank, model):
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            monkeypatch.setattr(random_state_hook, "get_rank", lambda: rank)
            random_state_hook.RandomStateHook().before_train(SimpleNamespace(model=model, seed=0))
            return get_random_state()

        return start

    def test_each_has_random_numbers_of_its_own_and_the_subnets_of_all(self, start, spos):
        states, subnets = [], []
        for rank in range(3):
            states.append(start(rank, spos))
            subnets.append([spos.mutator.sample_choices() for _ in range(5)])
        for name in ("python", "numpy", "torch"):
            assert len({str(state[name]) for state in states}) == 3
        assert subnets[0] == subnets[1] == subnets[2]
        assert len({tuple(subnet.items()) for subnet in subnets[0]}) > 1

    def test_so_has_a_plain_model(self, start):
        assert len({str(start(rank, torch.nn.Linear(1, 1))) for rank in range(3)}) == 3

    def test_the_first_keeps_the_seed_of_the_run(self, start, spos):
        seed_generators(5)
        started = str(start(0, spos))
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        assert started == str(get_random_state())

    def test_a_mutator_of_mmrazor_keeps_them_alike(self, start):
        """Its subnets come from the global generators, and have to be the same on all ranks."""
        model = torch.nn.Linear(1, 1)
        model.mutator = NasMutator()
        assert len({str(start(rank, model)) for rank in range(3)}) == 1

    @pytest.mark.slow
    def test_more_processes_than_before_do_not_repeat_each_other(self, make_runner, tmp_path, monkeypatch):
        train(make_runner, tmp_path, RETRAINING, **{"train_cfg.max_epochs": 1})
        state = torch.load(tmp_path / "epoch_1.pth", weights_only=True)["random_state"]
        states = []
        for rank in range(3):
            runner = make_runner(tmp_path, {}, RETRAINING)
            runner._train_loop = runner.build_train_loop(runner._train_loop)
            hook = random_state_hook.RandomStateHook()
            hook._resumed = state
            monkeypatch.setattr(random_state_hook, "get_rank", lambda rank=rank: rank)
            hook.before_train(runner)
            states.append((random.random(), np.random.random(), torch.rand(()).item()))
        assert all(len(set(numbers)) == 3 for numbers in zip(*states, strict=True))


def test_every_branch_of_a_seed_is_another_stream():
    drawn = {}
    for branch in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 0), (2**63, 3), (2**63 - 1, 3)]:
        seed_generators(*branch)
        drawn[branch] = (random.random(), np.random.random(), torch.rand(()).item())
    for numbers in zip(*drawn.values(), strict=True):
        assert len(set(numbers)) == len(drawn)
    seed_generators(1, 0)
    assert drawn[1, 0] == (random.random(), np.random.random(), torch.rand(()).item())


@pytest.mark.slow
@pytest.mark.parametrize(("path", "workers"), [(SUPERNET, 0), (RETRAINING, 2)], ids=["supernet", "retraining"])
def test_two_processes(path, workers, tmp_path, assert_same):
    """gloo: own augmentations, common subnets, and an exact resume, with validation where the config has it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, Path(__file__).with_name("two_processes_random.py"), path, tmp_path, workers]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
    first, second = (rank["straight"]["pixels"] for rank in ranks)
    for epoch in range(2):
        assert len(first[epoch]) == 48
        assert sum(one == other for one, other in zip(first[epoch], second[epoch], strict=True)) <= 1
    assert first[0] != first[1] and second[0] != second[1]
    assert ranks[0]["straight"]["subnets"] == ranks[1]["straight"]["subnets"]
    for rank in ranks:
        assert rank["resumed"]["pixels"] == {1: rank["straight"]["pixels"][1]}
        assert rank["resumed"]["subnets"].get(1) == rank["straight"]["subnets"].get(1)
    one, other = (torch.load(tmp_path / n / "epoch_2.pth", weights_only=True) for n in ("straight", "resumed"))
    assert_same({part: one[part] for part in PARTS}, {part: other[part] for part in PARTS})
    assert len(one["random_state"]["processes"]) == 2


class TestCheckpoints:
    """What ``RandomStateHook`` makes of checkpoints that it did not write."""

    @pytest.fixture
    def changed(self, straight, tmp_path):
        """``changed(function)``: the checkpoint of a first epoch, after ``function`` has changed its content."""

        def change(function):
            content = torch.load(straight / "epoch_1.pth", weights_only=True)
            function(content)
            torch.save(content, tmp_path / "changed.pth")
            return {"load_from": str(tmp_path / "changed.pth"), "resume": True}

        return change

    def test_version_0_1_kept_those_of_pss_with_the_sampler(
        self, make_runner, straight, changed, tmp_path, assert_same_training
    ):
        def as_in_0_1(content):
            content["pss"].update(content.pop("random_state"))
            del content["pss"]["choices"]  # came later

        make_runner(tmp_path, changed(as_in_0_1)).train()
        assert_same_training(straight / "epoch_3.pth", tmp_path / "epoch_3.pth")

    def test_none_at_all(self, make_runner, changed, tmp_path, caplog):
        make_runner(tmp_path, changed(lambda content: content.pop("random_state"))).train()
        (log,) = tmp_path.glob("*/*.log")
        assert "the checkpoint has no random states (key 'random_state')" in log.read_text()

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ({"processes": []}, "was imported and cannot be resumed; start from it with load_from"),
            ([1], "'random_state' is damaged: it has no list of 'processes'"),
            ({"processes": [{"python": (3, (1, 2), None)}], "data_seed": 0}, "random states are damaged"),
        ],
        ids=["imported", "not a table", "half a state"],
    )
    def test_unusable(self, make_runner, changed, tmp_path, state, message):
        runner = make_runner(tmp_path, changed(lambda content: content.update(random_state=state)))
        with pytest.raises(CheckpointError, match=message):
            runner.train()


class TestDefault:
    def hooks(self, runner):
        return sum(isinstance(hook, random_state_hook.RandomStateHook) for hook in runner.hooks)

    def test_every_training_has_one(self, make_runner, tmp_path):
        """Also that of a config which knows nothing of it."""
        assert self.hooks(make_runner(tmp_path)) == 1
        assert self.hooks(make_runner(tmp_path, {"default_hooks": {}})) == 1

    def test_unless_the_config_says_otherwise(self, make_runner, tmp_path):
        own = {"default_hooks": {}, "custom_hooks": [dict(type="RandomStateHook")]}
        assert self.hooks(make_runner(tmp_path, own)) == 1
        assert self.hooks(make_runner(tmp_path, {"default_hooks.random_state": None})) == 0
