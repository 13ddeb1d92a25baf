"""The command-line options of the tools."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from pss_razor.engine import launch
from pss_razor.estimators import OneShotResourceEstimator


class Built(BaseException):
    """Raised instead of training, with the runner."""


@pytest.fixture
def build(call, monkeypatch):
    """``build("train.py", …)``: the runner that a tool would have run."""

    def run(*args):
        runners = []

        def build_runner(config):
            runner = original(config)
            runners.append(runner)
            raise Built

        monkeypatch.setattr(launch, "build_runner", build_runner)
        with pytest.raises(Built):
            call(*args)
        return runners[0]

    original = launch.build_runner
    return run


CONFIG_TOOLS = ["train.py", "test.py", "export_subnets.py"]
COMPARISON_TOOLS = ["compare_samplers", "diagnose_pools", "evidence_report", "plot_main_result", "reproduce_released"]


@pytest.mark.parametrize("tool", [*CONFIG_TOOLS, *(f"{name}.py" for name in COMPARISON_TOOLS)])
def test_help_answers_without_importing_torch(root, tool):
    program = f"""
import runpy, sys
sys.argv = [{tool!r}, "--help"]
try:
    runpy.run_path({str(root / "tools" / tool)!r}, run_name="__main__")
finally:
    slow = [name for name in sys.modules if name.partition(".")[0] in ("torch", "mmengine", "numpy")]
    assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert tool not in CONFIG_TOOLS or ("--cfg-options" in done.stdout and "--work-dir" in done.stdout)


@pytest.mark.parametrize("args", [["train.py"], ["test.py", "c.py"], ["export_subnets.py", "c.py", "k.pth"]])
def test_missing_arguments(call, args):
    assert call(args[0], *args[1:]).code == 2


@pytest.mark.slow
def test_all_options_of_train_together(spawn, tiny, tmp_path):
    """A real run with everything at once, as a shell starts it."""
    work_dir = tmp_path / "work"
    options = ["--amp", "--no-validate", "--auto-scale-lr", "--launcher", "none", "--local_rank", "0", "--resume"]
    settings = ["train_cfg.max_epochs=1", "param_scheduler.end=1", "default_hooks.subnet_sampler.pool_size=3"]
    done = spawn("tools/train.py", tiny, "--work-dir", work_dir, *options, "--cfg-options", *settings)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[1][6/6]" in done.stdout and "Epoch(val)" not in done.stdout and "[2][" not in done.stdout
    assert [path.name for path in work_dir.glob("*.pth")] == ["epoch_1.pth"]


@pytest.mark.slow
def test_all_options_of_test_together(spawn, tiny, tmp_path, trained):
    out = tmp_path / "out" / "r.json"
    options = ["--work-dir", tmp_path / "work", "--out", out, "--amp", "--launcher", "none", "--local-rank=0"]
    done = spawn("tools/test.py", tiny, trained, *options, "--cfg-options", "test_cfg.top_k=1")
    assert done.returncode == 0, done.stderr[-2000:]
    records = json.loads(out.read_text())["subnets"]
    assert {record["rank"] for record in records} == {None, 0}
    assert (tmp_path / "work" / "tiny_supernet.py").is_file()
    assert not (tmp_path / "work" / "pool_results.json").exists()


@pytest.mark.slow
def test_export_after_test_and_by_itself_are_the_same(call, tiny, tmp_path, trained):
    assert call("test.py", tiny, trained, "--out", tmp_path / "r.json").code == 0
    done = call("export_subnets.py", tiny, trained, "--out-dir", tmp_path / "a", "--results", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert "exported 8 subnets" in done.out
    assert call("export_subnets.py", tiny, trained, "--out-dir", tmp_path / "b").code == 0
    a, b = (json.loads((tmp_path / folder / "manifest.json").read_text()) for folder in "ab")
    assert a["subnets"] == b["subnets"]
    for entry in a["subnets"]:
        for file in entry["files"].values():
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_defaults_of_train(build, tiny, tmp_path):
    runner = build("train.py", tiny)
    assert runner.work_dir == str(tmp_path / "work")
    assert runner._resume is False and runner._load_from is None
    assert runner.cfg.optim_wrapper.get("type") is None and runner.cfg.auto_scale_lr.enable is False
    assert runner.val_loop is not None and runner.launcher == "none"


def test_work_dir_is_named_after_the_config(tiny):
    assert launch.load_config(tiny, None, "none", None).work_dir == "work_dirs/tiny_supernet"
    assert launch.load_config(tiny, ["work_dir=a/b"], "none", None).work_dir == "a/b"
    assert launch.load_config(tiny, ["work_dir=a/b"], "none", "c").work_dir == "c"


@pytest.mark.parametrize("option", [["--resume"], ["--resume", "auto"]])
def test_resume_auto(build, tiny, tmp_path, trained, option):
    runner = build("train.py", tiny, *option)
    assert runner._resume is False and runner._load_from is None  # nothing there: starts
    runner = build("train.py", tiny, "--work-dir", trained.parent, *option)
    assert runner._resume is True and runner._load_from == str(trained)


def test_nothing_to_resume_keeps_the_configs_load_from(build, write_config, trained):
    runner = build("train.py", write_config(f'load_from = "{trained}"'), "--resume")
    assert runner._resume is False and runner._load_from == str(trained)


def test_resume_path(build, tiny, trained):
    runner = build("train.py", tiny, "--resume", trained.with_name("epoch_1.pth"))
    assert runner._resume is True and runner._load_from == str(trained.with_name("epoch_1.pth"))


def test_load_from_initialises_the_weights_only(call, write_config, tmp_path, trained):
    config = write_config(
        f'load_from = "{trained}"\ntrain_cfg = dict(max_epochs=1)\noptim_wrapper = dict(optimizer=dict(lr=0.0))'
    )
    done = call("train.py", config, "--no-validate", "--work-dir", tmp_path / "work")
    assert done.code == 0, done.err
    before, after = (torch.load(p, weights_only=True) for p in (trained, tmp_path / "work" / "epoch_1.pth"))
    name = "architecture.head.fc.weight"
    assert torch.equal(before["state_dict"][name], after["state_dict"][name])
    visits = [e["visits"] for pools in after["pss"]["pools"].values() for pool in pools.values() for e in pool]
    assert sum(visits) <= 6  # the pools started empty


def test_no_validate(build, tiny):
    runner = build("train.py", tiny, "--no-validate")
    assert runner.val_loop is None


def test_amp(build, tiny):
    wanted = "AmpOptimWrapper" if torch.cuda.is_available() else "CPUAmpOptimWrapper"
    assert build("train.py", tiny, "--amp").cfg.optim_wrapper.type == wanted
    done = build("train.py", tiny, "--amp", "--cfg-options", "optim_wrapper.type=AmpOptimWrapper")
    assert done.cfg.optim_wrapper.type == wanted


def test_amp_with_another_wrapper(call, tiny):
    done = call("train.py", tiny, "--amp", "--cfg-options", "optim_wrapper.type=ApexOptimWrapper")
    assert done.code == 1 and done.err.endswith("optim_wrapper.type = 'ApexOptimWrapper'; remove one of the two\n")


def test_auto_scale_lr(build, tiny):
    runner = build("train.py", tiny, "--auto-scale-lr")
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(wrapper, runner.auto_scale_lr)
    assert {group["lr"] for group in wrapper.optimizer.param_groups} == {0.02 * 16 / 64}


def test_auto_scale_lr_without_a_base_batch_size(call, write_config):
    done = call("train.py", write_config("auto_scale_lr = dict(_delete_=True)"), "--auto-scale-lr")
    assert done.code == 1 and "base_batch_size" in done.err.splitlines()[-1]


def test_cfg_options(build, tiny):
    settings = [
        "train_cfg.max_epochs=7",
        "default_hooks.subnet_sampler.pool_size=3",
        "model.architecture.resolutions=[16,24]",
    ]
    config = build("train.py", tiny, "--cfg-options", *settings, "env_cfg.cudnn_benchmark=True").cfg
    assert config.train_cfg.max_epochs == 7 and config.default_hooks.subnet_sampler.pool_size == 3
    assert config.default_hooks.subnet_sampler.type == "PrioritizedPoolSamplerHook"
    assert list(config.model.architecture.resolutions) == [16, 24] and config.env_cfg.cudnn_benchmark is True


def test_unknown_launcher(call, tiny):
    assert call("train.py", tiny, "--launcher", "none-such").code == 2


class TestPrintConfig:
    def test_it_is_the_config_with_all_that_it_inherits(self, call, tmp_path):
        done = call("train.py", "pss_mbv2_flops", "--print-config", "--cfg-options", "train_cfg.max_epochs=7")
        assert done.code == 0
        from mmengine.config import Config

        path = tmp_path / "printed.py"
        path.write_text(done.out)
        printed, shipped = Config.fromfile(path), launch.load_config("pss_mbv2_flops", None, "none", None)
        assert printed.train_cfg.pop("max_epochs") == 7 and shipped.train_cfg.pop("max_epochs") == 250
        for key in ("model", "train_dataloader", "train_cfg", "test_cfg", "default_hooks", "optim_wrapper"):
            assert printed[key] == shipped[key]

    def test_nothing_is_built(self, call, tmp_path):
        """Neither the data nor a GPU table is there."""
        assert call("train.py", "pss_mbv2_gpu", "--print-config", "--work-dir", tmp_path / "none").code == 0
        assert not (tmp_path / "none").exists()


class TestDryRun:
    def test_it_reports_and_leaves_nothing(self, call, tiny, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = call("train.py", tiny, "--dry-run", "--work-dir", tmp_path / "none")
        assert done.code == 0, done.err
        report = done.out[done.out.index("search space:") :]
        assert list(tmp_path.iterdir()) == []
        assert "search space: 9 dimensions" in report and "resolution  resolution        3" in report
        assert "images: training 96, validation 48, test 48" in report
        assert "a step of 16 images: " in report and "18 steps, 3 epochs of 6: " in report

    def test_its_numbers_are_the_searchs_own(self, call, build_algorithm_of, tiny):
        """Counted one by one, where the samplers use tables."""
        done = call("train.py", tiny, "--dry-run")
        algorithm = build_algorithm_of(tiny)
        lines = [line.split() for line in done.out[done.out.index("search space:") :].splitlines()]
        indices = algorithm.space.enumerate()
        assert f"{len(indices):,}" in done.out
        for constraint in algorithm.constraints:
            start = next(i for i, line in enumerate(lines) if line[:1] == [constraint.metric] and "subnets" in line)
            resources = algorithm.costs[constraint.metric](indices)
            for offset, target in enumerate(constraint.targets, start=1):
                count = sum(abs(resources - target) <= constraint.step / 2)
                assert lines[start + offset] == [f"{target:g}", f"{count:,}"]
            ends = next(line for line in lines if line[:1] == [constraint.metric])
            assert float(ends[-1]) == pytest.approx(resources.max(), rel=1e-5)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ("test_cfg = dict(top_q=3)", ["top_q"]),
            ("test_evaluator = dict(topk=(1, 50))", ["test_evaluator.topk=(1,)"]),
            ('model = dict(constraints=[dict(metric="flops", first=70, last=300, step=10)])', ["can be reached"]),
            ("train_dataloader = dict(batch_size=500)", ["train_dataloader yields no batch"]),
        ],
    )
    def test_what_would_end_a_training_or_its_test(self, call, write_config, body, words):
        done = call("train.py", write_config(body), "--dry-run")
        assert done.code == 1 and all(word in done.err for word in words) and "Traceback" not in done.err

    @pytest.mark.parametrize("name", ["tiny_spos", "tiny_retraining", "tiny_cream", "tiny_search"])
    def test_other_methods(self, call, root, name, tmp_path):
        done = call("train.py", root / "tests" / "tiny" / f"{name}.py", "--dry-run")
        assert done.code == 0, done.err
        assert "images: training" in done.out and ("a step of 16 images" in done.out) == (name != "tiny_search")
        assert ("24 candidates at most, 4 epochs of 6: " in done.out) == (name == "tiny_search")

    @pytest.mark.parametrize("name", ["tiny_spos", "tiny_cream", "tiny_search"])
    def test_resources_of_other_methods(self, call, root, build_algorithm_of, name):
        """The least, the median and the most of all paths, counted one by one; the first ops are not the cheapest."""
        config = root / "tests" / "tiny" / f"{name}.py"
        done = call("train.py", config, "--dry-run")
        lines = done.out[done.out.index("search space:") :].splitlines()
        algorithm = build_algorithm_of(config)
        if name == "tiny_cream":
            costs, units = {"flops": algorithm.flops}, {"flops": "(MFLOPs)"}
        else:
            costs = OneShotResourceEstimator(32).build_costs(algorithm.architecture, algorithm.mutator)
            units = {"flops": "(MFLOPs of MMRazor)", "params": "(M params)"}
        space = next(iter(costs.values())).space
        for metric, cost in costs.items():
            (row,) = [line for line in lines if line.startswith(f"{metric} {units[metric]}")]
            everything = cost(space.enumerate())
            wanted = [everything.min(), np.median(everything), everything.max()]
            least, median, most = (float(cell) for cell in row.removeprefix(f"{metric} {units[metric]}").split())
            assert (least, most) == pytest.approx((wanted[0], wanted[2]), rel=1e-5)
            assert median == pytest.approx(wanted[1], rel=0.02)  # of draws

    def test_a_search_with_a_predictor(self, call, root, tmp_path):
        predictor = dict(type="MetricPredictor", handler_cfg=dict(type="CartsHandler"), train_samples=8)
        (tmp_path / "predictor.py").write_text(
            f"_base_ = {str(root / 'tests' / 'tiny' / 'tiny_search.py')!r}\n"
            f"train_cfg = dict(predictor_cfg={predictor!r})\n"
        )
        done = call("train.py", tmp_path / "predictor.py", "--dry-run")
        assert "11 candidates at most, the predictor's samples and its best: " in done.out, done.err
