"""Training without a config is the training with one."""

from __future__ import annotations

import inspect
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_network import SIDE, SmallNetwork, measured_loader, part, small_supernet, train_loader
from torch import nn
from torch.utils.data import DataLoader, Dataset

import pss_razor
from pss_razor.core import CheckpointError, ConfigError, DataError
from pss_razor.datasets import Digits
from pss_razor.estimators import LatencyTable

from mmengine.config import Config
from mmengine.dataset import DefaultSampler

TINY = Path(__file__).resolve().parents[1] / "tiny" / "tiny_converted.py"
OPTIONS = dict(epochs=2, num_targets=3, pool_size=2)


def fit(work_dir, supernet=None, loader=None, **options):
    return pss_razor.fit(
        supernet or small_supernet(), loader or train_loader(), work_dir=work_dir, **{**OPTIONS, **options}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("fit"), val_loader=measured_loader())


class NormalisedDigits(Dataset):
    """The images of mmcls' pipeline as a loader of plain PyTorch has them."""

    def __init__(self, digits, mean, std):
        self.digits = digits
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __len__(self):
        return len(self.digits)

    def __getitem__(self, index):
        own = self.digits[index]
        return (own["inputs"].float() - self.mean) / self.std, own["data_samples"].gt_label.label.item()


class TestSameAsByConfig:
    @pytest.fixture(scope="class")
    def folders(self, make_runner, tmp_path_factory):
        """Two trainings of the same weights on the same images in the same order."""
        by_config, by_fit = tmp_path_factory.mktemp("by_config"), tmp_path_factory.mktemp("by_fit")
        pipeline = [dict(type="mmcls.Resize", scale=SIDE), dict(type="mmcls.PackClsInputs")]
        validation = {"val_cfg": None, "val_dataloader": None, "val_evaluator": None}
        options = {
            **validation,
            "model.architecture.network": dict(type="small_network.SmallNetwork", _delete_=True),
            "model.architecture.resolutions": [12, SIDE],
            "model.architecture.divisor": 4,
            "model.architecture.sort": None,
            "model.constraints": [dict(metric="flops", num_targets=3)],
            "train_dataloader.dataset.pipeline": pipeline,
        }
        runner = make_runner(by_config, options, TINY)
        supernet = small_supernet(seed=1)
        supernet.load_state_dict(runner.model.architecture.backbone.supernet.state_dict())
        runner.train()
        config = runner.cfg
        digits = Digits("train", indices=96, pipeline=pipeline)
        statistics = config.model.data_preprocessor
        dataset = NormalisedDigits(digits, statistics.mean, statistics.std)
        loader = DataLoader(dataset, 16, sampler=DefaultSampler(dataset, seed=0), drop_last=True)
        hook = next(hook for hook in runner.hooks if hasattr(hook, "p_explore"))
        assert (hook.p_explore, hook.temperature) == ((0.5, 0.01), (1.0, 0.01))
        pss_razor.fit(
            supernet,
            loader,
            epochs=2,
            num_targets=3,
            pool_size=2,
            p_explore=(0.5, 0.01),
            lr=config.optim_wrapper.optimizer.lr,
            work_dir=by_fit,
        )
        return by_config, by_fit

    def test_weights_pools_and_draws(self, folders, assert_same):
        a, b = (torch.load(folder / "epoch_2.pth", weights_only=True) for folder in folders)
        for key in ("state_dict", "optimizer", "param_schedulers", "pss"):
            assert_same(a[key], b[key])
        assert any(pool for pools in a["pss"]["pools"].values() for pool in pools.values())


class TestTraining:
    def test_trains_the_supernet_that_it_was_given(self, trained):
        """And leaves its largest subnet active."""
        before = small_supernet()
        changed = [
            not torch.equal(a, b) for a, b in zip(before.parameters(), trained.supernet.parameters(), strict=True)
        ]
        assert all(changed)
        assert trained.supernet.active_subnet == trained.supernet.space.largest
        assert sum(len(pool) for pool in trained.pools.values()) > 2

    def test_validates(self, trained):
        history = trained.runner.message_hub.get_scalar("val/largest/accuracy/top1").data
        assert len(history[0]) == 1  # at the end

    def test_logs_what_is_searched_once(self, trained):
        (log,) = Path(trained.runner.log_dir).glob("*.log")
        assert log.read_text().count("searched: 100.0% of the FLOPs") == 1

    def test_the_original_teaches(self, tmp_path):
        """From other logits than the largest subnet's, the other subnets learn something else; it learns the same."""
        loader = train_loader(part(0, 32), shuffle=False)
        by, losses = {}, {}
        for teacher in ("largest", "original"):
            supernet = small_supernet(sort="l1")
            trained = fit(tmp_path / teacher, supernet, loader, teacher=teacher, epochs=1, lr=0.1)
            by[teacher] = torch.cat([p.detach().flatten() for p in supernet.parameters()])
            losses[teacher] = trained.runner.message_hub.get_scalar("train/largest_ce").data[0]
        assert losses["largest"][0] == losses["original"][0] and not torch.equal(by["largest"], by["original"])

    def test_targets(self, tmp_path):
        trained = fit(tmp_path, targets=[0.1, 0.25, 0.4], epochs=1)
        assert set(trained.pools) <= {("flops", 0.1), ("flops", 0.25), ("flops", 0.4)} and len(trained.pools) > 1

    def test_several_metrics(self, tmp_path):
        trained = fit(tmp_path, metric=["params", "flops"], epochs=1)
        assert {metric for metric, _ in trained.pools} == {"params", "flops"}

    def test_latency(self, tmp_path):
        """Each part takes 2 us, so that a subnet's latency is the number of its parts that run."""
        supernet = small_supernet()
        LatencyTable(dict.fromkeys(supernet.graph.geometries, 2.0), "cpu", {}).save(tmp_path / "table.json")
        options = dict(metric="latency_cpu", latency_table=tmp_path / "table.json", num_targets=2, epochs=1)
        trained = fit(tmp_path / "work", supernet, **options)
        entries = [entry for pool in trained.pools.values() for entry in pool]
        assert {entry.subnet["depth0"] for entry in entries} == {1, 2}
        blocks = {entry.subnet["depth0"]: entry.resource for entry in entries}
        for entry in entries:
            assert entry.resource == blocks[entry.subnet["depth0"]] and entry.resource % 2 == 0
        assert blocks[1] < blocks[2]

    @pytest.mark.parametrize("schedule", ["cosine", "linear", None])
    def test_learning_rate(self, tmp_path, schedule):
        """By iteration: it rises in the first of three epochs, then falls."""
        trained = fit(tmp_path, schedule=schedule, warmup_epochs=1, lr=0.5, epochs=3)
        rates = trained.runner.message_hub.get_scalar("train/lr").data[0]
        steps = 6
        assert rates[0] == pytest.approx(0.005) and np.all(np.diff(rates[:steps]) > 0)
        done = np.arange(2 * steps)
        falling = {
            "cosine": (1 + np.cos(math.pi * done / (2 * steps))) / 2,
            "linear": 1 - done / (2 * steps - 1),  # mmengine's ends at 0, not before it
            None: np.ones(2 * steps),
        }
        np.testing.assert_allclose(rates[steps:], 0.5 * falling[schedule], rtol=1e-6, atol=1e-12)

    def test_the_seed_says_all(self, tmp_path, assert_same_training):
        """Draws, the order of images, their augmentation; whatever was drawn before."""
        for name, seed in (("a", 4), ("b", 4), ("c", 5)):
            fit(tmp_path / name, loader=train_loader(Noisy()), epochs=1, seed=seed)
            torch.rand(3)
        assert_same_training(tmp_path / "a" / "epoch_1.pth", tmp_path / "b" / "epoch_1.pth")
        with pytest.raises(AssertionError):
            assert_same_training(tmp_path / "a" / "epoch_1.pth", tmp_path / "c" / "epoch_1.pth")

    def test_default_learning_rate(self, trained):
        rates = trained.runner.message_hub.get_scalar("train/lr").data[0]
        assert rates[0] == pytest.approx(0.3 * 16 / 1024)

    def test_defaults_are_those_of_the_configs(self):
        base = Path(__file__).resolve().parents[2] / "configs" / "_base_"
        runtime = Config.fromfile(base / "algorithms" / "pss.py")
        recipe = Config.fromfile(base / "schedules" / "imagenet_pss_250e.py")
        expected = {
            name: runtime.default_hooks.subnet_sampler[name] for name in ("pool_size", "p_explore", "temperature")
        }
        expected |= {"log_interval": runtime.default_hooks.logger.interval, "seed": runtime.randomness.seed}
        expected |= {"weight_decay": recipe.optim_wrapper.optimizer.weight_decay}
        expected |= {"val_interval": recipe.train_cfg.val_interval}
        defaults = inspect.signature(pss_razor.fit).parameters
        assert {name: defaults[name].default for name in expected} == expected
        calibration_batches = inspect.signature(pss_razor.evaluate).parameters["calibration_batches"].default
        assert calibration_batches == runtime.test_cfg.calibration_batches

    def test_optimizer_of_ones_own(self, tmp_path):
        made = []

        def optimizer(parameters):
            made.append(torch.optim.AdamW(parameters, 1e-3))
            return made[0]

        trained = fit(tmp_path, optimizer=optimizer, epochs=1)
        assert trained.runner.optim_wrapper.optimizer is made[0]
        parameters = {id(p) for group in made[0].param_groups for p in group["params"]}
        assert parameters == {id(p) for p in trained.supernet.parameters()}
        assert made[0].state[next(trained.supernet.parameters())]["step"] == 6

    def test_class_probabilities(self, tmp_path):
        """Of a loader that mixes images."""

        def mix(samples):
            images, labels = torch.utils.data.default_collate(samples)
            one_hot = nn.functional.one_hot(labels, 10).float()
            return 0.7 * images + 0.3 * images.flip(0), 0.7 * one_hot + 0.3 * one_hot.flip(0)

        trained = fit(tmp_path, loader=train_loader(collate_fn=mix), epochs=1)
        assert all(p.isfinite().all() for p in trained.supernet.parameters())

    def test_mixed_precision(self, tmp_path):
        """bfloat16 on the CPU changes the weights; by how much shows that it was on."""
        loader = train_loader(shuffle=False)
        single, mixed = (fit(tmp_path / str(amp), amp=amp, loader=loader, device="cpu", epochs=1) for amp in (0, 1))
        weights = [torch.cat([p.detach().flatten() for p in t.supernet.parameters()]) for t in (single, mixed)]
        difference = (weights[0] - weights[1]).norm() / weights[0].norm()
        assert 1e-7 < difference < 0.1


class Noisy(Dataset):
    """Transforms that draw from torch's and numpy's generators."""

    def __init__(self):
        self.part = part(0, 96)

    def __len__(self):
        return len(self.part)

    def __getitem__(self, index):
        image, label = self.part[index]
        return image + 0.1 * torch.randn(()) + 0.1 * float(np.random.standard_normal()), label


class TestResume:
    def loader(self, kind):
        match kind:
            case "shuffled":
                return train_loader(Noisy())
            case "generator of its own":
                return train_loader(Noisy(), generator=torch.Generator().manual_seed(5))
            case _:
                return train_loader(Noisy(), num_workers=2, persistent_workers=kind == "persistent workers")

    @pytest.mark.parametrize(
        "kind",
        [
            "shuffled",
            "generator of its own",
            pytest.param("workers", marks=pytest.mark.slow),
            # Their random states are theirs; documented in docs/networks.md.
            pytest.param("persistent workers", marks=[pytest.mark.slow, pytest.mark.xfail(strict=True)]),
        ],
    )
    def test_resumed_equals_never_stopped(self, tmp_path, kind, assert_same_training):
        fit(tmp_path / "straight", loader=self.loader(kind))
        resumed = tmp_path / "resumed"
        resumed.mkdir()
        shutil.copy(tmp_path / "straight" / "epoch_1.pth", resumed)
        torch.manual_seed(99)
        fit(resumed, supernet=small_supernet(seed=3), loader=self.loader(kind), resume=True)
        assert_same_training(tmp_path / "straight" / "epoch_2.pth", resumed / "epoch_2.pth")

    def test_stopped_in_the_middle(self, tmp_path, assert_same_training):
        class Stops(Noisy):
            count = 0

            def __getitem__(self, index):
                self.count += 1
                if self.count == 130:  # in the second epoch
                    raise KeyboardInterrupt
                return super().__getitem__(index)

        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "stopped", loader=train_loader(Stops()))
        fit(tmp_path / "stopped", loader=train_loader(Noisy()), resume=True)
        fit(tmp_path / "straight", loader=train_loader(Noisy()))
        assert_same_training(tmp_path / "straight" / "epoch_2.pth", tmp_path / "stopped" / "epoch_2.pth")

    def test_of_what_has_ended(self, tmp_path):
        first = fit(tmp_path, epochs=1)
        again = fit(tmp_path, supernet=small_supernet(seed=3), epochs=1, resume=True)
        weights = first.supernet.state_dict()
        assert all(torch.equal(weights[name], own) for name, own in again.supernet.state_dict().items())
        assert {k: [e.subnet for e in p] for k, p in again.pools.items()} == {
            k: [e.subnet for e in p] for k, p in first.pools.items()
        }

    def test_without_a_checkpoint_it_starts(self, tmp_path):
        assert fit(tmp_path, epochs=1, resume=True).runner.epoch == 1

    def test_of_another_training(self, trained, tmp_path):
        folder = Path(trained.runner.work_dir)
        with pytest.raises(
            ConfigError, match=r"work_dir = .* has epoch_2.pth of an earlier training; give resume=True"
        ):
            fit(folder)
        with pytest.raises(ConfigError, match="2 epochs already, more than epochs = 1"):
            fit(folder, epochs=1, resume=True)
        shutil.copy(folder / "epoch_1.pth", tmp_path)
        with pytest.raises(CheckpointError, match="do not fit the config's constraints"):
            fit(tmp_path, num_targets=4, resume=True)
        with pytest.raises(CheckpointError, match="another"):
            fit(tmp_path, supernet=small_supernet(num_classes=12), resume=True)


class TestBadArguments:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (dict(supernet=SmallNetwork()), "trains a supernet, not a SmallNetwork"),
            (dict(epochs=0), "epochs = 0"),
            (dict(epochs=1.5), "epochs = 1.5"),
            (dict(val_interval=0), "val_interval = 0"),
            (dict(log_interval=0), "log_interval = 0"),
            (dict(lr=0.0), "lr = 0.0 must be positive"),
            (dict(loader=train_loader(part(0, 33), drop_last=False)), "the last batch of 3 has one image"),
            (dict(optimizer=lambda parameters: None), "optimizer returned a NoneType"),
            (dict(warmup_epochs=2), "warmup_epochs = 2 must be less than epochs = 2"),
            (dict(schedule="step"), "schedule = 'step' is not known"),
            (dict(metric="macs"), r"metric = 'macs' is not known; choose from \['flops'"),
            (dict(metric="latency_cpu"), "needs latency_table"),
            (dict(metric=["flops", "flops"]), "twice"),
            (dict(metric=["flops", "params"], targets=[1, 2]), "of one metric"),
            (dict(targets=[1, 2, 4]), "must increase evenly"),
            (dict(targets=[0.2]), "must increase evenly"),
            (dict(num_targets=1), "num_targets = 1"),
            (dict(pool_size=0), "pool_size = 0"),
            (dict(teacher="mine"), "teacher = 'mine' is not known"),
            (dict(device="cuda:77"), "device = 'cuda:77' cannot be used"),
            (dict(device="gpu"), "device = 'gpu' cannot be used"),
            (dict(optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)), "optimizer is a SGD"),
            (dict(optimizer=torch.optim.AdamW, lr=0.1), "lr = 0.1 is of the optimizer"),
        ],
    )
    def test_of_fit(self, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            fit(tmp_path, **options)

    def test_work_dir_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="is a file"):
            fit(tmp_path / "file")

    def test_a_label_that_shows_late(self, tmp_path):
        images, labels = part(0, 96).tensors
        labels = labels.clone()
        labels[50] = 12
        with pytest.raises(DataError, match="label 12; the network has 10 outputs"):
            fit(tmp_path, loader=train_loader(torch.utils.data.TensorDataset(images, labels)))

    def test_one_process_of_several(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match="train_loader gives all 2 processes all images; make it with sampler"):
            fit(tmp_path)
        with pytest.raises(ConfigError, match="leave device out"):
            fit(tmp_path, device="cpu")


@pytest.mark.slow
def test_two_processes(tmp_path):
    """By torchrun, each with its own images: equal weights and results, which one process exports."""
    here = Path(__file__).parent
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, here / "two_processes_fit.py", tmp_path]
    done = subprocess.run([str(item) for item in command], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank_{rank}.pt", weights_only=False) for rank in range(2))
    assert set(first["images"]) | set(second["images"]) == set(range(96))
    assert not set(first["images"]) & set(second["images"])
    assert all(torch.equal(a, b) for a, b in zip(first["parameters"], second["parameters"], strict=True))
    assert first["accuracies"] == second["accuracies"]
    assert all(value * 60 / 100 == pytest.approx(round(value * 60 / 100), abs=1e-3) for value in first["accuracies"])
    trained = fit(tmp_path / "work", supernet=small_supernet(seed=3), epochs=1, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(first["parameters"], trained.supernet.parameters(), strict=True))
    measured = pss_razor.evaluate(trained, measured_loader(), top_k=1, calibration_batches=2)
    assert len(pss_razor.export(measured, tmp_path / "out", formats=["torch"])) == len(measured.best) - 2
